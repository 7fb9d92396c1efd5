"""A table: cells, each measured once, stored at once, summed up over the seeds."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import typer

from coopt_fl.core.cache import exclusive
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import write_json
from coopt_fl.optimized.provenance import versions
from coopt_fl.students.curve import mean_and_spread
from experiments.figures import Draw, dots
from experiments.lab import Lab, hardware
from experiments.scales import Study, studies

RESULTS = Path(__file__).parent / "results"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"

METHOD = 2
"""Of the way in which targets are made. Tables without it are of an implementation that experiments
had for themselves, without the test of alignability, blocks and audit; see
docs/decisions/2026-11-29-experiments-use-the-platform.md."""

Cell = dict[str, Any]
Rows = Callable[[Study], list[Cell]]
Measure = Callable[[Lab, Cell], Cell]


@dataclass(frozen=True)
class Table:
    """What is measured, and on what.

    Attributes:
        name: Results go to ``NAME-SCALE.json``, the figure to ``NAME-SCALE.png``.
        rows: The rows' settings, as plain values, for a study.
        measure: What is found for one row and seed (``cell["seed"]``); plain values.
        draw: Makes the figure from the results.
    """

    name: str
    rows: Rows
    measure: Measure
    draw: Draw

    def run(
        self,
        scale: str,
        root: str | None,
        only: str | None,
        results: Path,
        figures: Path,
        part: Cell | None = None,
    ) -> None:
        """Measure what is missing, write the results after every cell, draw the figure.

        Of a ``part``, the cells with these settings, no figure is drawn.
        """
        file = results / f"{self.name}-{scale}.json"
        chosen = studies(scale, root, only)
        labs = {one: Lab(study) for one, study in chosen.items()}  # fails before hours are spent
        for study_name, lab in labs.items():
            command = f"python -m experiments {self.name} --scale {scale}"
            fill(file, command, study_name, lab, self, part)
        if part is None:
            self.picture(scale, results, figures)

    def picture(self, scale: str, results: Path, figures: Path) -> None:
        """Draw the figure of what is known.

        Raises:
            ConfigError: Nothing is.
        """
        file, figure = results / f"{self.name}-{scale}.json", figures / f"{self.name}-{scale}.png"
        if not file.exists():
            raise ConfigError(f"there are no results to draw: {file} is missing")
        figures.mkdir(parents=True, exist_ok=True)
        self.draw(stored(file)).savefig(figure, metadata={"Software": None})
        typer.echo(f"written: {file}, {figure}")


def table(rows: Rows, draw: Draw = dots) -> Callable[[Measure], Table]:
    """Make a function that measures a cell the table of its name."""
    return lambda measure: Table(measure.__name__, rows, measure, draw)


def fill(
    file: Path, command: str, study_name: str, lab: Lab, table: Table, part: Cell | None = None
) -> None:
    """Measure every cell, or those of a ``part``, that ``file`` lacks, and store each at once.

    Other processes may fill the same table: a cell that both have measured is stored once.

    Raises:
        ConfigError: The table has no such part, or the file is of other settings.
    """
    about = {
        "command": command,
        "method": METHOD,
        "study": _told(replace(lab.study, data=replace(lab.study.data, root=None))),
        "samples": len(lab.all),
        "fingerprint": lab.source.fingerprint,
        "hardware": hardware() | {"threads": str(torch.get_num_threads())},
        "versions": versions(),
    }
    about = json.loads(json.dumps(about))  # as it comes back from its file
    rows = table.rows(lab.study)
    cells = [row | {"seed": seed} for seed in lab.study.seeds for row in rows]
    wanted = [cell for cell in cells if (part or {}).items() <= cell.items()]
    if not wanted:
        raise ConfigError(f"no cell of {table.name} has {part}; its rows are {rows}")
    for cell in wanted:
        if holds(_known(file, study_name, about), cell):
            continue
        started, lab.cell = time.perf_counter(), f"{file.stem} {study_name} {cell}"
        measured = table.measure(lab, cell)
        took = {"took": time.perf_counter() - started, "date": time.strftime("%Y-%m-%d")}
        with exclusive(file.parent):
            known = _known(file, study_name, about)
            if not holds(known, cell):
                known["cells"].append(cell | measured | took | _other_versions(known, about))
                known["table"] = summary(known["cells"], rows)
                write_json(file, stored(file) | {study_name: known})
        typer.echo(f"{study_name} {cell}: {dict(list(measured.items())[:1])}")


def _told(study: Study) -> Cell:
    """Return the settings of a study that are not the default, so that it may gain new ones."""
    plain = {one.name: one.default for one in fields(Study)}
    return {key: value for key, value in asdict(study).items() if value != plain[key]}


def _other_versions(known: Cell, about: Cell) -> Cell:
    """Return those ``versions`` of a cell that are not the table's, which are of its first cell."""
    other = about["versions"].items() - known["about"]["versions"].items()
    return {"versions": dict(sorted(other))} if other else {}


def holds(known: Cell, cell: Cell) -> bool:
    """Tell whether a cell of a study's table has been measured."""
    return any(cell.items() <= one.items() for one in known["cells"])


def _known(file: Path, study_name: str, about: Cell) -> Cell:
    """Return a study's table so far.

    Raises:
        ConfigError: its cells cannot be compared with what is measured now.
    """
    known: Cell = stored(file).get(study_name, {"about": about, "cells": []})
    before = _settled(known["about"])
    for part, now in _settled(about).items():
        if now != before[part]:
            raise ConfigError(
                f"{file} holds cells of another {part} of {study_name}, which cannot stand in one "
                "table with new ones: give another --results, or delete that file"
            )
    return known


def _settled(about: Cell) -> Cell:
    """Return what all cells of a table have in common: their seconds are compared, too."""
    parts = {part: about.get(part) for part in ("method", "study", "fingerprint")}
    return parts | {"hardware": about["hardware"] | {"system": "", "memory": ""}}


def stored(file: Path) -> dict[str, Cell]:
    """Return the results of all studies so far."""
    return json.loads(file.read_text()) if file.exists() else {}


def summary(cells: list[Cell], rows: list[Cell]) -> list[Cell]:
    """Return each row with mean, standard deviation (n - 1) and number of seeds of its numbers."""
    summed = []
    for row in rows:
        same = [cell for cell in cells if row.items() <= cell.items()]
        numbers = (k for cell in same for k, value in cell.items() if isinstance(value, float))
        # seconds of a cell with its probes, which are for planning, are not shown
        measures = [key for key in dict.fromkeys(numbers) if key not in (*row, "took")]
        if same:
            found = {k: mean_and_spread([one[k] for one in same if k in one]) for k in measures}
            summed.append(row | found)
    return summed
