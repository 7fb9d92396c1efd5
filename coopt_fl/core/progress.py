"""How a run tells a person what it is doing; results never depend on it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Live
from rich.progress import TimeElapsedColumn as Elapsed

from coopt_fl.core.words import about, noun, plural

Level = Literal["quiet", "normal", "verbose"]
"""Quiet: errors and the result; normal: progress as well; verbose: Flower's and Ray's logs, too."""

SHORT = 5
"""Seconds left below which no estimate is shown."""

LONG = 60
"""Seconds left from which on the first estimate gets a line of its own."""


class Progress:
    """Shows nothing, as suits a library; subclasses show something.

    Attributes:
        record: called with the name of each phase and the seconds that it took.
        log: called with each line of the log, see :mod:`coopt_fl.core.log`.
        level: how much is shown.
    """

    level: Level = "quiet"

    def __init__(self) -> None:
        self.record: Callable[[str, float], None] = lambda phase, seconds: None
        self.log: Callable[[str], object] = lambda line: None

    @contextmanager
    def phase(self, name: str, note: str = "") -> Iterator[None]:
        """Time a phase; its seconds go to ``self.record`` even if it fails."""
        started = time.perf_counter()
        self.log(f"{name} begins")
        self.show(name, 0, 0, note=note)
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self.record(name, seconds)
            self.log(f"{name} took {seconds:.1f} s")

    @contextmanager
    def recording(self, record: Callable[[str, float], None]) -> Iterator[None]:
        """Call ``record`` with each phase and its seconds, until the block ends."""
        before, self.record = self.record, record
        try:
            yield
        finally:
            self.record = before

    def show(self, name: str, done: int, total: int, unit: str = "", note: str = "") -> None:
        """Show that ``done`` of ``total`` of ``name`` are done.

        Args:
            name: what is being done.
            done: how many units are done. The time left is estimated from the first call with a
                total on, so make one before the work begins.
            total: how many units there are; 0: the work has just begun, and this is unknown.
            unit: the singular of what is counted, such as "epoch".
            note: shown at the end.
        """

    def say(self, message: str) -> None:
        """Show a sentence."""

    def warn(self, message: str) -> None:
        """Show a warning."""
        self.log(f"warning: {message}")


class Lines(Progress):
    """One line for each phase, and one for each quarter of a bar: for logs and pipes."""

    level: Level = "normal"

    def __init__(self, console: Console, level: Level = "normal") -> None:
        super().__init__()
        self.console, self.level = console, level
        self._quarters: dict[str, int] = {}
        self._began: dict[str, tuple[int, float, int]] = {}  # first count, its time, latest count
        self._estimated = set[str]()

    def show(self, name: str, done: int, total: int, unit: str = "", note: str = "") -> None:
        """Print a line for each quarter done, and one with the first estimate of a long task."""
        quarter, left = 4 * done // total if total else 0, self._left(name, done, total)
        long = left is not None and left >= LONG and name not in self._estimated
        if self._quarters.get(name) != quarter or long:
            self._quarters[name] = quarter
            amount = f" {done:,}/{plural(total, unit)}" if total else ""
            rest = ""
            if left is not None:
                self._estimated.add(name)
                rest = f", {about(left)} left"
            self._print(f"{name}{amount} {note}".rstrip() + rest)

    def say(self, message: str) -> None:
        """Print a sentence."""
        self._print(message)

    def warn(self, message: str) -> None:
        """Print a warning."""
        super().warn(message)
        self._print(f"warning: {message}")

    def _left(self, name: str, done: int, total: int) -> float | None:
        """Return the seconds left at the speed so far; None if unknown or below ``SHORT``."""
        if not total:
            self._began.pop(name, None)
            return None
        now = time.monotonic()
        first, began, latest = self._began.get(name, (done, now, done))
        if done < latest:  # the task starts over
            first, began = done, now
            self._estimated.discard(name)
        self._began[name] = first, began, done
        if not first < done < total:
            return None
        left = (total - done) * (now - began) / (done - first)
        return left if left >= SHORT else None

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bars(Lines):
    """Live bars, one for each phase and participant: for terminals."""

    def __init__(self, console: Console, level: Level = "normal") -> None:
        super().__init__(console, level)
        self._bars: dict[str, TaskID] = {}
        self.live = Live(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            Elapsed(),
            TextColumn("{task.fields[left]}"),  # rich's estimate fails if a step takes minutes
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )

    def show(self, name: str, done: int, total: int, unit: str = "", note: str = "") -> None:
        """Move the bar of ``name``."""
        if name not in self._bars:
            self._bars[name] = self.live.add_task(name, total=None, unit="", left="", note="")
        left = self._left(name, done, total)
        self.live.update(
            self._bars[name],
            completed=done,
            total=total or None,
            unit=noun(total, unit),
            left="" if left is None else f"{about(left)} left",
            note=note,
        )

    @contextmanager
    def phase(self, name: str, note: str = "") -> Iterator[None]:
        """Show a pulsing bar that is full at the end."""
        with super().phase(name, note):
            yield
        bar = self._bars[name]
        total = self.live.tasks[self.live.task_ids.index(bar)].total or 1
        self.live.update(bar, completed=total, total=total, left="")


@contextmanager
def console_progress(level: Level = "normal") -> Iterator[Progress]:
    """Yield a progress on standard error: bars on a terminal, lines elsewhere, nothing if quiet.

    The file is asked whether it is a terminal: if FORCE_COLOR is set, Rich takes a pipe for one,
    and would move the cursor in it.
    """
    console = Console(stderr=True, force_jupyter=False)  # a notebook would frame each line
    if level == "quiet":
        yield Progress()
    elif not console.file.isatty() or console.is_dumb_terminal:
        yield Lines(console, level)
    else:
        bars = Bars(console, level)
        with bars.live:
            yield bars
