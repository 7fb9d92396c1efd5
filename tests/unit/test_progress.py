"""Progress of a run in a log, a pipe and a terminal."""

import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console

from coopt_fl.core.progress import Lines, Progress, console_progress
from coopt_fl.core.words import about, plural

CURSOR = ("\x1b[?25l", "\x1b[1A", "\x1b[2K")
SCRIPT = """
from coopt_fl.core.progress import console_progress
with console_progress() as progress, progress.phase("optimize"):
    for done in range(5):
        progress.show("optimize", done, 4, "sample")
    progress.warn("careful")
"""


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@contextmanager
def lines() -> Iterator[tuple[Lines, list[str]]]:
    """Yield a progress that prints lines, and the list of lines, complete after the block."""
    console, said = Console(width=80), list[str]()
    with console.capture() as capture:
        yield Lines(console), said
    said += capture.get().splitlines()


def test_a_log_says_what_a_phase_begins_with() -> None:
    with lines() as (progress, said):
        with progress.phase("describe", "(starting Ray)"):
            pass
        with progress.phase("describe"):
            progress.show("describe", 3, 4, "node")
    assert said == ["describe (starting Ray)", "describe 3/4 nodes"]


def test_a_second_task_of_the_same_name_is_estimated_by_its_own_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    with lines() as (progress, said):
        for seconds in (10, 20):
            for done in range(5):
                progress.show("probe", done, 4, "image")
                clock.now += seconds
    estimates = [line.partition(", about ")[2] for line in said]
    assert estimates[:5] == ["", "30 s left", "20 s left", "10 s left", ""]
    assert estimates[5:] == ["", "60 s left", "40 s left", "20 s left", ""]


def test_what_takes_long_is_estimated_at_its_first_step_and_at_each_quarter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    with lines() as (progress, said):
        for done in range(51, 101):  # 50 were done in an earlier attempt
            clock.now += 30 if done > 51 else 1000
            progress.show("student", done, 100, "epoch", "loss 0.5")
    assert said == [
        "student 51/100 epochs loss 0.5",
        "student 52/100 epochs loss 0.5, about 24 min left",
        "student 75/100 epochs loss 0.5, about 12 min left",
        "student 100/100 epochs loss 0.5",
    ]


def test_what_begins_anew_is_estimated_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with lines() as (progress, said):
        for step in (1, 100):
            progress.show("fuse", 0, 0)
            for done in range(3):
                progress.show("fuse", done, 2)
                clock.now += step
    assert said[0] == "fuse" and said[-2:] == ["fuse 1/2, about 2 min left", "fuse 2/2"]
    assert sum("left" in line for line in said) == 1  # a second is not worth saying


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 epochs"), (1, "1 epoch"), (1437, "1,437 epochs")]
)
def test_counts_are_said_with_their_word(count: int, words: str) -> None:
    assert plural(count, "epoch") == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2, "5 s"), (42, "40 s"), (95, "2 min"), (700, "12 min"), (7800, "2 h 10 min")],
)
def test_times_to_come_are_rough(seconds: float, words: str) -> None:
    assert about(seconds) == f"about {words}"


@pytest.mark.parametrize("colour", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_a_pipe_gets_lines_and_no_cursor_codes(colour: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | colour,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not any(code in done.stderr + done.stdout for code in CURSOR)
    assert "optimize 2/4 samples\n" in done.stderr and "warning: careful\n" in done.stderr


def test_a_terminal_gets_live_bars() -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm"}
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, stderr=theirs, check=True)
    os.close(theirs)
    seen = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert CURSOR[0] in seen and "careful" in seen


def test_quiet_shows_nothing_but_still_times(capfd: pytest.CaptureFixture[str]) -> None:
    timed = list[str]()
    with (
        console_progress("quiet") as progress,
        progress.recording(lambda name, seconds: timed.append(name)),
        progress.phase("fuse"),
    ):
        progress.show("fuse", 1, 2, "row")
        progress.warn("careful")
    assert timed == ["fuse"] and capfd.readouterr() == ("", "")
    assert (progress.level, Progress().level) == ("quiet", "quiet")
