"""Seconds that do not depend on what else the host does."""

import time

from experiments.clocks import Stopwatch


def test_waiting_does_not_count_and_working_does() -> None:
    watch, both = Stopwatch(), Stopwatch(threads=2)
    time.sleep(0.5)
    waited = watch.seconds
    assert waited < 0.25
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert 0.2 <= watch.seconds - waited < 0.5
    assert 0.1 <= both.seconds < watch.seconds
