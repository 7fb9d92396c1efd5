"""Cells of a table: each measured once, stored at once, summed up over the seeds."""

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import click
import torch
import typer

from coopt_fl.core.cache import exclusive
from coopt_fl.core.errors import ConfigError, CooptError
from coopt_fl.core.files import write_json
from coopt_fl.optimized.provenance import versions
from coopt_fl.students.curve import mean_and_spread
from experiments.features import hardware
from experiments.figures import dots
from experiments.lab import Lab
from experiments.scales import SCALES, Study, studies

RESULTS = Path(__file__).parent / "results"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"

METHOD = 2
"""Of the way in which targets are made. Tables without it are of an implementation that experiments
had for themselves, without the test of alignability, blocks and audit (docs/decisions.md)."""

UNSHOWN = {"took": ""}
"""Measures that are not summed up: seconds of the cell with its probes, for planning."""

Cell = dict[str, Any]
Settings = Callable[[Study], Iterable[Cell]]
Measure = Callable[[Lab, Cell], Cell]
Draw = Callable[[Path, Path], None]

Scale = Annotated[
    str, typer.Option(click_type=click.Choice(list(SCALES)), help="How large the studies are.")
]
Root = Annotated[
    str | None, typer.Option(help="Folder of the images; of several studies, of their folders.")
]
Only = Annotated[str | None, typer.Option(help="One study of the scale.")]


def experiment(module: str, settings: Settings, measure: Measure, draw: Draw = dots) -> typer.Typer:
    """Return the command line of an experiment, and run it if its module is the program.

    Args:
        module: ``__name__`` there; results go to ``experiments/results/NAME-SCALE.json``.
        settings: The rows of the table, as plain values, for a study.
        measure: What is found for one row and seed (``cell["seed"]``); plain values.
        draw: Makes the figure from the results, given both files.
    """
    started = module == "__main__"
    name = (sys.modules[module].__spec__.name if started else module).rpartition(".")[2]
    app = typer.Typer(add_completion=False)

    @app.command()
    def run(
        scale: Scale = "cpu",
        root: Root = None,
        only: Only = None,
        results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
        figures: Annotated[Path, typer.Option(help="Folder of the figures.")] = FIGURES,
    ) -> None:
        """Measure what is missing, write the results after every cell, draw the figure."""
        file = results / f"{name}-{scale}.json"
        chosen = studies(scale, root, only)
        labs = {one: Lab(study) for one, study in chosen.items()}  # fails before hours are spent
        for study_name, lab in labs.items():
            command = f"python -m experiments.{name} --scale {scale}"
            fill(file, command, study_name, lab, settings, measure)
        draw(file, figures / f"{name}-{scale}.png")
        typer.echo(f"written: {file}, {figures / f'{name}-{scale}.png'}")

    if started:
        try:
            app()
        except CooptError as error:
            raise SystemExit(str(error)) from None
    return app


def fill(
    file: Path, command: str, study_name: str, lab: Lab, settings: Settings, measure: Measure
) -> None:
    """Measure every cell that ``file`` lacks, and store each at once.

    Other processes may fill the same table: a cell that both have measured is stored once.
    """
    about = {
        "command": command,
        "method": METHOD,
        "study": asdict(replace(lab.study, data=replace(lab.study.data, root=None))),
        "samples": len(lab.all),
        "fingerprint": lab.source.fingerprint,
        "hardware": hardware() | {"threads": str(torch.get_num_threads())},
        "versions": versions(),
    }
    about = json.loads(json.dumps(about))  # as it comes back from its file
    rows = list(settings(lab.study))
    for cell in [row | {"seed": seed} for seed in lab.study.seeds for row in rows]:
        if _holds(_table(file, study_name, about), cell):
            continue
        started = time.perf_counter()
        measured = measure(lab, cell)
        took = {"took": time.perf_counter() - started, "date": time.strftime("%Y-%m-%d")}
        with exclusive(file.parent):
            known = _table(file, study_name, about)
            if not _holds(known, cell):
                known["cells"].append(cell | measured | took | _other_versions(known, about))
                known["table"] = summary(known["cells"], rows)
                write_json(file, _stored(file) | {study_name: known})
        typer.echo(f"{study_name} {cell}: {dict(list(measured.items())[:1])}")


def _other_versions(known: Cell, about: Cell) -> Cell:
    """Return those ``versions`` of a cell that are not the table's, which are of its first cell."""
    first = known["about"]["versions"]
    other = {name: is_ for name, is_ in about["versions"].items() if is_ != first.get(name)}
    return {"versions": other} if other else {}


def _holds(known: Cell, cell: Cell) -> bool:
    return any(cell.items() <= one.items() for one in known["cells"])


def _table(file: Path, study_name: str, about: Cell) -> Cell:
    """Return a study's table so far.

    Raises:
        ConfigError: its cells cannot be compared with what is measured now.
    """
    known: Cell = _stored(file).get(study_name, {"about": about, "cells": []})
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
    hardware = {k: v for k, v in about["hardware"].items() if k not in ("system", "memory")}
    return {
        "method": about.get("method"),
        "study": about["study"],
        "fingerprint": about["fingerprint"],
        "hardware": hardware,
    }


def _stored(file: Path) -> dict[str, Any]:
    """Return the results of all studies so far."""
    return json.loads(file.read_text()) if file.exists() else {}


def summary(cells: list[Cell], rows: list[Cell]) -> list[Cell]:
    """Return each row with mean, standard deviation (n - 1) and number of seeds of its numbers."""
    table = []
    for row in rows:
        same = [cell for cell in cells if row.items() <= cell.items()]
        if not same:
            continue
        measures = [
            k for k, v in same[0].items() if isinstance(v, float) and k not in row | UNSHOWN
        ]
        table.append(row | {key: mean_and_spread([one[key] for one in same]) for key in measures})
    return table
