"""Study in the hours there are: ``python -m experiments queue --budget 150m --root DIR``.

``backlog.yaml`` lists cells of tables in order of worth. Each is measured in a process of its own
with one thread, so that its CPU seconds are those of a core. When the time is over what is at work
is stopped; the same command goes on there, for a student is saved after each epoch. Results are
written, and never committed.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table as Shown

from coopt_fl.core.errors import ConfigError, CooptError
from experiments.table import RESULTS, Cell, holds, stored

BACKLOG = Path(__file__).with_suffix(".yaml")

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
PATIENCE = 60.0
"""Seconds that a measurement may take to end when it is told to."""


@dataclass(frozen=True)
class Entry:
    """Cells of one row of a table.

    Attributes:
        table: Its name.
        scale: Of its study.
        where: The row's settings.
        seeds: One cell for each.
        minutes: What a cell is thought to take on one core.
    """

    table: str
    scale: str
    where: Cell
    seeds: tuple[int, ...]
    minutes: float

    @property
    def cells(self) -> list[Cell]:
        """The settings of each cell."""
        return [self.where | {"seed": seed} for seed in self.seeds]

    def measured(self, results: Path) -> list[Cell]:
        """Return what is known of the row, for whatever seeds."""
        known = stored(results / f"{self.table}-{self.scale}.json").values()
        cells = (cell for study in known for cell in study["cells"])
        return [cell for cell in cells if self.where.items() <= cell.items()]

    def left(self, results: Path) -> list[Cell]:
        """Return the cells that are still to be measured."""
        known = {"cells": self.measured(results)}
        return [cell for cell in self.cells if not holds(known, cell)]

    def predicted(self, results: Path) -> float:
        """Return the minutes that a cell is thought to take."""
        known = [max(c["took"], c.get("training s", 0)) for c in self.measured(results)]
        return fmean(known) / 60 if known else self.minutes


def main(
    budget: Annotated[str, typer.Option(help="For how long: 90s, 150m, 8h.")] = "150m",
    root: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of the images; SCALE=DIR: of those of one scale. May be repeated."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells at a time, each with one thread.")] = 1,
    show: Annotated[
        bool, typer.Option("--list", help="Say what is left, and measure nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The list as JSON.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    backlog: Annotated[Path, typer.Option(help="What is to be measured.")] = BACKLOG,
) -> None:
    """Measure what is worth most, as far as the time goes; the same command goes on from there."""
    entries, seconds = read(backlog), _seconds(budget)
    if as_json:
        typer.echo(json.dumps([_row(entry, results) for entry in entries]))
    elif show:
        Console().print(_shown(entries, results))
    if show or as_json:
        return
    if failed := work(entries, roots(root or []), results, seconds, jobs):
        raise CooptError(f"not measured, see above: {'; '.join(failed)}")


def read(file: Path) -> list[Entry]:
    """Return the entries of a backlog.

    Raises:
        ConfigError: It is not a list of such entries.
    """
    try:
        listed = yaml.safe_load(file.read_text())
        return [Entry(**one | {"seeds": tuple(one["seeds"])}) for one in listed]
    except (OSError, TypeError, KeyError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{file} is no list of table, scale, where, seeds, minutes: {error}"
        ) from error


def roots(given: Sequence[str]) -> dict[str, str]:
    """Return the folder of the images by scale, that of all others as ""."""
    words = [word.partition("=") for word in given]
    return {scale if found else "": folder if found else scale for scale, found, folder in words}


def work(
    entries: list[Entry], root: dict[str, str], results: Path, seconds: float, jobs: int
) -> list[str]:
    """Measure cells until the time is over, and return which failed."""
    end, running, failed = time.monotonic() + seconds, dict[str, subprocess.Popen[bytes]](), []
    waiting = _tasks(entries, root, results)
    # a shell's background jobs ignore the first of them
    numbers = signal.SIGINT, signal.SIGTERM
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        while time.monotonic() < end:
            while len(running) < jobs and (task := next(waiting, None)):
                name, command = task
                typer.echo(f"{time.strftime('%H:%M')} {name}")
                alone = os.environ | {"OMP_NUM_THREADS": "1"}
                running[name] = subprocess.Popen(command, env=alone, start_new_session=True)
            if not running:
                break
            time.sleep(0.2)
            for name, process in list(running.items()):
                if (code := process.poll()) is not None:
                    del running[name]
                    failed += [name] if code else []
    finally:
        for process in running.values():
            os.killpg(process.pid, signal.SIGTERM)
        for process in running.values():
            _end(process)
        for number, handler in before.items():
            signal.signal(number, handler)
    return failed


def _tasks(
    entries: list[Entry], root: dict[str, str], results: Path
) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each cell that is left, and the command that measures it."""
    for entry in entries:
        for cell in entry.left(results):
            words = [entry.table, "--scale", entry.scale, "--results", str(results)]
            images = root.get(entry.scale, root.get(""))
            words += ["--part", json.dumps(cell), *(["--root", images] if images else [])]
            name = f"{entry.table} {entry.scale} {cell}, about {entry.predicted(results):.0f} min"
            yield name, [sys.executable, "-m", "experiments", *words]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was told to end, and kill it where it does not."""
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _seconds(budget: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if found is None:
        raise ConfigError(f"--budget {budget!r} is no time: give for example 90s, 150m or 8h")
    return float(found[1]) * UNITS[found[2]]


def _row(entry: Entry, results: Path) -> dict[str, Any]:
    left, each = len(entry.left(results)), entry.predicted(results)
    where = " ".join(str(value) for value in entry.where.values())
    table = f"{entry.table}-{entry.scale}"
    counted = {"cells": len(entry.seeds), "left": left, "minutes": round(left * each, 1)}
    return {"table": table, "row": where} | counted


def _shown(entries: list[Entry], results: Path) -> Shown:
    rows = [_row(entry, results) for entry in entries]
    shown = Shown(title=f"{sum(row['minutes'] for row in rows) / 60:.1f} hours of a core are left")
    for name in rows[0]:
        shown.add_column(name)
    for row in rows:
        shown.add_row(*map(str, row.values()))
    return shown
