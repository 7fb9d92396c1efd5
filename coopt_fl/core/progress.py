"""How a run tells a person what it is doing; results never depend on it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Live
from rich.progress import TimeElapsedColumn as Elapsed


class Progress:
    """Shows nothing, as suits a library. Subclasses show something."""

    def __init__(self) -> None:
        self.record: Callable[[str, float], None] = lambda phase, seconds: None

    @contextmanager
    def phase(self, name: str, note: str = "") -> Iterator[None]:
        """Surround a phase; its seconds go to ``self.record``, finished or not."""
        started = time.perf_counter()
        self.show(name, 0, 0, note=note)
        try:
            yield
        finally:
            self.record(name, time.perf_counter() - started)

    @contextmanager
    def recording(self, record: Callable[[str, float], None]) -> Iterator[None]:
        """Have ``record`` told of each phase and its seconds, until the block ends."""
        before, self.record = self.record, record
        try:
            yield
        finally:
            self.record = before

    def show(self, name: str, done: int, total: int, unit: str = "", note: str = "") -> None:
        """Show that ``done`` of ``total`` units of ``name`` are done; total 0: just begun."""

    def say(self, message: str) -> None:
        """Show a sentence."""

    def warn(self, message: str) -> None:
        """Show a warning."""


class Lines(Progress):
    """One line for each phase, and one for each quarter of a bar: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self._quarters: dict[str, int] = {}

    def show(self, name: str, done: int, total: int, unit: str = "", note: str = "") -> None:
        """Print a line when a quarter more is done."""
        quarter = 4 * done // total if total else 0
        if self._quarters.get(name) != quarter:
            self._quarters[name] = quarter
            amount = f" {done}/{total} {unit}" if total else ""
            self._print(f"{name}{amount} {note}".rstrip())

    def say(self, message: str) -> None:
        """Print a sentence."""
        self._print(message)

    def warn(self, message: str) -> None:
        """Print a warning."""
        self._print(f"warning: {message}")

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bars(Lines):
    """Live bars, one for each phase and participant: for terminals."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bars: dict[str, TaskID] = {}
        self.live = Live(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            Elapsed(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )

    def show(self, name: str, done: int, total: int, unit: str = "", note: str = "") -> None:
        """Move the bar of ``name``."""
        if name not in self._bars:
            self._bars[name] = self.live.add_task(name, total=None, unit="", note="")
        self.live.update(
            self._bars[name], completed=done, total=total or None, unit=unit, note=note
        )

    @contextmanager
    def phase(self, name: str, note: str = "") -> Iterator[None]:
        """Show a pulsing bar that turns full at the end."""
        with super().phase(name, note):
            yield
        bar = self._bars[name]
        total = self.live.tasks[self.live.task_ids.index(bar)].total or 1
        self.live.update(bar, completed=total, total=total)


@contextmanager
def console_progress() -> Iterator[Progress]:
    """Yield bars on a terminal, lines elsewhere; both go to standard error."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(console)
        return
    bars = Bars(console)
    with bars.live:
        yield bars
