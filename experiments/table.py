"""Tables of cells, each measured once, stored immediately, and summarised over the seeds."""

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
from experiments.lab import Lab
from experiments.precomputed import hardware
from experiments.scales import Study, studies

RESULTS = Path(__file__).parent / "results"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"

METHOD = 2
"""Version of the way in which targets are made. Tables without it were measured with an earlier
implementation of the experiments, without the test of alignability, blocks and audit
(docs/decisions/2026-11-29-experiments-use-the-platform.md)."""

Cell = dict[str, Any]
Rows = Callable[[Study], list[Cell]]
Measure = Callable[[Lab, Cell], Cell]


@dataclass(frozen=True)
class Table:
    """A table: its rows, how a cell is measured, and how the figure is drawn.

    Attributes:
        name: Results go to ``NAME-SCALE.json``, the figure to ``NAME-SCALE.png``.
        rows: Returns the rows' settings, as plain values, for a study.
        measure: Returns the measures, as plain values, of one row and seed (``cell["seed"]``).
        draw: Draws the figure from the results.
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
        """Measure missing cells, write the results after each, and draw the figure.

        With ``part``, only cells with these settings are measured, and no figure is drawn.
        """
        file = results / f"{self.name}-{scale}.json"
        chosen = studies(scale, root, only)
        labs = {one: Lab(study) for one, study in chosen.items()}  # a missing source fails early
        for study_name, lab in labs.items():
            command = f"python -m experiments {self.name} --scale {scale}"
            fill(file, command, study_name, lab, self, part)
        if part is None:
            self.picture(scale, results, figures)

    def picture(self, scale: str, results: Path, figures: Path) -> None:
        """Draw the figure of the stored results.

        Raises:
            ConfigError: There are no results.
        """
        file, figure = results / f"{self.name}-{scale}.json", figures / f"{self.name}-{scale}.png"
        if not file.exists():
            raise ConfigError(f"there are no results to draw: {file} is missing")
        figures.mkdir(parents=True, exist_ok=True)
        self.draw(stored(file)).savefig(figure, metadata={"Software": None})
        typer.echo(f"written: {file}, {figure}")


def table(rows: Rows, draw: Draw = dots) -> Callable[[Measure], Table]:
    """Return a decorator that turns a function that measures a cell into the table of its name."""
    return lambda measure: Table(measure.__name__, rows, measure, draw)


def fill(
    file: Path, command: str, study_name: str, lab: Lab, table: Table, part: Cell | None = None
) -> None:
    """Measure the cells that ``file`` lacks, or those of ``part``, and store each immediately.

    Other processes may fill the same table; a cell that both have measured is stored once.

    Raises:
        ConfigError: The table has no such part, or the file was measured with other settings.
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
    about = json.loads(json.dumps(about))  # as it is read back from the file
    rows = table.rows(lab.study)
    cells = [row | {"seed": seed} for seed in lab.study.seeds for row in rows]
    wanted = [cell for cell in cells if (part or {}).items() <= cell.items()]
    if not wanted:
        raise ConfigError(f"no cell of {table.name} has {part}; its rows are {rows}")
    for number, cell in enumerate(wanted, 1):
        if holds(_known(file, study_name, about), cell):
            continue
        typer.echo(f"{study_name} {cell}: measuring cell {number} of {len(wanted)}", err=True)
        started, lab.cell = time.perf_counter(), f"{file.stem} {study_name} {cell}"
        measured = table.measure(lab, cell)
        took = {"took": time.perf_counter() - started, "date": time.strftime("%Y-%m-%d")}
        with exclusive(file.parent):
            known = _known(file, study_name, about)
            if not holds(known, cell):
                known["cells"].append(cell | measured | took | _other_host(known, about))
                known["table"] = summary(known["cells"], rows)
                write_json(file, stored(file) | {study_name: known})
        typer.echo(f"{study_name} {cell}: {dict(list(measured.items())[:1])}")


def _told(study: Study) -> Cell:
    """Return a study's settings that differ from the defaults, so that new ones can be added."""
    plain = {one.name: one.default for one in fields(Study)}
    return {key: value for key, value in asdict(study).items() if value != plain[key]}


def _other_host(known: Cell, about: Cell) -> Cell:
    """Return a cell's ``versions`` and ``CPU`` where they differ from the table's first cell's."""
    first, cpu = known["about"], about["hardware"]["CPU"]
    other = about["versions"].items() - first["versions"].items()
    told = {"versions": dict(sorted(other))} if other else {}
    return told | ({"CPU": cpu} if cpu != first["hardware"].get("CPU") else {})


def holds(known: Cell, cell: Cell) -> bool:
    """Return whether a cell of a study's table has been measured."""
    return any(cell.items() <= one.items() for one in known["cells"])


def _known(file: Path, study_name: str, about: Cell) -> Cell:
    """Return a study's table so far.

    Raises:
        ConfigError: its cells are not comparable with those measured now.
    """
    known: Cell = stored(file).get(study_name, {"about": about, "cells": []})
    before = _settled(known["about"])
    for part, now in _settled(about).items():
        if now != before[part]:
            raise ConfigError(
                f"{file} holds cells of another {part} of {study_name}, which cannot be in one "
                "table with new ones: give another --results, or delete that file"
            )
    return known


def _settled(about: Cell) -> Cell:
    """Return the parts of ``about`` that all cells of a table must share.

    Hardware is among them, because their seconds are compared. The CPU's name is not: a long
    study may go on elsewhere, so it is kept with each cell.
    """
    parts = {part: about.get(part) for part in ("method", "study", "fingerprint")}
    return parts | {"hardware": about["hardware"] | {"system": "", "CPU": "", "memory": ""}}


def stored(file: Path) -> dict[str, Cell]:
    """Return the results in a file by study; none if there is no file."""
    return json.loads(file.read_text()) if file.exists() else {}


def summary(cells: list[Cell], rows: list[Cell]) -> list[Cell]:
    """Return each row with mean, sample standard deviation and number of seeds of its measures."""
    summed = []
    for row in rows:
        same = [cell for cell in cells if row.items() <= cell.items()]
        numbers = (k for cell in same for k, value in cell.items() if isinstance(value, float))
        # "took", the seconds of a cell with its probes, only serves the queue's predictions
        measures = [key for key in dict.fromkeys(numbers) if key not in (*row, "took")]
        if same:
            found = {k: mean_and_spread([one[k] for one in same if k in one]) for k in measures}
            summed.append(row | found)
    return summed
