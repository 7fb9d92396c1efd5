"""Measuring within a time budget: ``python -m experiments queue --budget 150m --root DIR``.

``backlog.yaml`` lists cells of tables, most valuable first. Each is measured in its own process
with one thread, so that its CPU seconds are those of a single core. When the budget is used up,
running processes are stopped; the same command resumes them, because a student is saved after each
epoch. Results are written, but never committed.
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
"""Seconds that a process may take to end after SIGTERM, before it is killed."""


@dataclass(frozen=True)
class Entry:
    """Cells of one row of a table.

    Attributes:
        table: The table's name.
        scale: The scale of its study.
        where: The row's settings.
        seeds: The seeds; there is one cell for each.
        minutes: Estimated time of a cell on one core.
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
        """Return the measured cells of the row, of any seed."""
        known = stored(results / f"{self.table}-{self.scale}.json").values()
        cells = (cell for study in known for cell in study["cells"])
        return [cell for cell in cells if self.where.items() <= cell.items()]

    def left(self, results: Path) -> list[Cell]:
        """Return the cells that are not measured yet."""
        known = {"cells": self.measured(results)}
        return [cell for cell in self.cells if not holds(known, cell)]

    def predicted(self, results: Path) -> float:
        """Return the expected minutes of a cell: the mean of measured ones, else the estimate."""
        known = [max(c["took"], c.get("training s", 0)) for c in self.measured(results)]
        return fmean(known) / 60 if known else self.minutes


def main(
    budget: Annotated[str, typer.Option(help="Time to measure: 90s, 150m, 8h.")] = "150m",
    root: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of the images, or SCALE=DIR for those of one scale. May be repeated."
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Cells measured at the same time, each with one thread.")
    ] = 1,
    show: Annotated[
        bool, typer.Option("--list", help="List the cells that are left, and measure nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    backlog: Annotated[Path, typer.Option(help="YAML file with the cells to measure.")] = BACKLOG,
) -> None:
    """Measure the most valuable cells within a time budget; the same command resumes."""
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
    """Return the entries of a backlog file.

    Raises:
        ConfigError: The file is not a list of such entries.
    """
    try:
        listed = yaml.safe_load(file.read_text())
        return [Entry(**one | {"seeds": tuple(one["seeds"])}) for one in listed]
    except (OSError, TypeError, KeyError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{file} is not a list of entries with table, scale, where, seeds, minutes: {error}"
        ) from error


def roots(given: Sequence[str]) -> dict[str, str]:
    """Return the image folders of ``--root`` by scale; the default for other scales is at ""."""
    words = [word.partition("=") for word in given]
    return {scale if found else "": folder if found else scale for scale, found, folder in words}


def work(
    entries: list[Entry], root: dict[str, str], results: Path, seconds: float, jobs: int
) -> list[str]:
    """Measure cells until the time is over, and return the names of those that failed."""
    end, running, failed = time.monotonic() + seconds, dict[str, subprocess.Popen[bytes]](), []
    waiting = _tasks(entries, root, results)
    # SIGINT is ignored by default in a shell's background jobs
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
    """Yield the name of each cell that is not measured yet, and the command that measures it."""
    for entry in entries:
        for cell in entry.left(results):
            words = [entry.table, "--scale", entry.scale, "--results", str(results)]
            images = root.get(entry.scale, root.get(""))
            words += ["--part", json.dumps(cell), *(["--root", images] if images else [])]
            name = f"{entry.table} {entry.scale} {cell}, about {entry.predicted(results):.0f} min"
            yield name, [sys.executable, "-m", "experiments", *words]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process to end after SIGTERM, and kill it after ``PATIENCE`` seconds."""
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _seconds(budget: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if found is None:
        raise ConfigError(f"--budget {budget!r} is not a time: give for example 90s, 150m or 8h")
    return float(found[1]) * UNITS[found[2]]


def _row(entry: Entry, results: Path) -> dict[str, Any]:
    left, each = len(entry.left(results)), entry.predicted(results)
    where = " ".join(str(value) for value in entry.where.values())
    table = f"{entry.table}-{entry.scale}"
    counted = {"cells": len(entry.seeds), "left": left, "minutes": round(left * each, 1)}
    return {"table": table, "row": where} | counted


def _shown(entries: list[Entry], results: Path) -> Shown:
    rows = [row for entry in entries if (row := _row(entry, results))["left"]]
    shown = Shown(title=f"{sum(row['minutes'] for row in rows) / 60:.1f} hours of a core are left")
    for name in ("table", "row", "cells", "left", "minutes"):
        shown.add_column(name)
    for row in rows:
        shown.add_row(*map(str, row.values()))
    return shown
