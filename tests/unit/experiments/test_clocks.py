"""Seconds that do not depend on what else the host does."""

import time

import pytest
import torch

from experiments import clocks


@pytest.mark.parametrize("threads", [1, 2])
def test_on_a_cpu_working_counts_and_waiting_does_not(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clocks, "pick_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    watch = clocks.Stopwatch()
    time.sleep(0.4)
    waited = watch.seconds
    assert waited < 0.2
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert 0.2 <= threads * (watch.seconds - waited) < 0.5


def test_with_a_gpu_the_wall_clock_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "pick_device", lambda: torch.device("cuda"))
    watch = clocks.Stopwatch()
    time.sleep(0.2)
    assert watch.seconds >= 0.2
