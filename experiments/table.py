"""Cells of a table: each measured once, stored at once, summed up over the seeds."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import write_json
from coopt_fl.optimized.provenance import versions
from coopt_fl.students.curve import mean_and_spread
from experiments.lab import Lab, hardware
from experiments.scales import Study, studies

RESULTS = Path(__file__).parent / "results"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"

UNSHOWN = {"took": ""}
"""Measures that are not summed up: seconds of the cell with its probes, for planning."""

Cell = dict[str, Any]
Settings = Callable[[Study], Iterable[Cell]]
Measure = Callable[[Lab, Cell], Cell]
Draw = Callable[[Path, Path], None]


def experiment(name: str, settings: Settings, measure: Measure, draw: Draw) -> typer.Typer:
    """Return the command line of an experiment.

    Args:
        name: Of its module; results go to ``experiments/results/NAME-SCALE.json``.
        settings: The rows of the table, as plain values, for a study.
        measure: What is found for one row and seed (``cell["seed"]``); plain values.
        draw: Makes the figure from the results, given both files.
    """
    app = typer.Typer(add_completion=False)

    @app.command()
    def run(
        scale: Annotated[str, typer.Option(help="smoke, cpu, whole, gpu or paper.")] = "cpu",
        root: Annotated[
            str | None,
            typer.Option(help="Folder of the images; of several studies, of their folders."),
        ] = None,
        only: Annotated[str | None, typer.Option(help="One study of the scale.")] = None,
        results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
        figures: Annotated[Path, typer.Option(help="Folder of the figures.")] = FIGURES,
    ) -> None:
        """Measure what is missing, write the results after every cell, draw the figure."""
        file = results / f"{name}-{scale}.json"
        chosen = studies(scale, root, only)
        labs = {one: Lab(study) for one, study in chosen.items()}  # fails before hours are spent
        for study_name, lab in labs.items():
            fill(file, name, scale, study_name, lab, settings, measure)
        draw(file, figures / f"{name}-{scale}.png")
        typer.echo(f"written: {file}, {figures / f'{name}-{scale}.png'}")

    return app


def fill(
    file: Path,
    name: str,
    scale: str,
    study_name: str,
    lab: Lab,
    settings: Settings,
    measure: Measure,
) -> None:
    """Measure every cell that ``file`` lacks, and store each at once.

    A cell has those ``versions`` that are not the table's, which are of its first cell.
    """
    study = lab.study
    about = _plain(
        {
            "command": f"python -m experiments.{name} --scale {scale}",
            "study": asdict(replace(study, data=replace(study.data, root=None))),
            "samples": len(lab.all),
            "fingerprint": lab.source.fingerprint,
            "hardware": hardware() | {"threads": str(torch.get_num_threads())},
            "versions": versions(),
        }
    )
    known = _stored(file).get(study_name, {"about": about, "cells": []})
    before = _settled(known["about"])
    for part, now in _settled(about).items():
        if now != before[part]:
            raise ConfigError(
                f"{file} holds cells of another {part} of {study_name}, which cannot stand in one "
                "table with new ones: give another --results, or delete that file"
            )
    at_first = known["about"]["versions"]
    other = {name: is_ for name, is_ in about["versions"].items() if is_ != at_first.get(name)}
    for cell in [row | {"seed": seed} for seed in study.seeds for row in settings(study)]:
        if any(cell.items() <= one.items() for one in known["cells"]):
            continue
        started = time.perf_counter()
        measured = measure(lab, cell)
        took = {"took": time.perf_counter() - started, "date": time.strftime("%Y-%m-%d")}
        took |= {"versions": other} if other else {}
        known["cells"].append(cell | measured | took)
        known["table"] = summary(known["cells"], list(settings(study)))
        typer.echo(f"{study_name} {cell}: accuracy {measured.get('accuracy')}")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, _stored(file) | {study_name: known})


def _settled(about: Cell) -> Cell:
    """Return what all cells of a table have in common, for their seconds are compared, too."""
    hardware = {k: v for k, v in about["hardware"].items() if k not in ("system", "memory")}
    return {"study": about["study"], "fingerprint": about["fingerprint"], "hardware": hardware}


def _plain(value: Cell) -> Cell:
    """Return a value as it comes back from its file."""
    plain: Cell = json.loads(json.dumps(value))
    return plain


def _stored(file: Path) -> dict[str, Any]:
    """Return the results of all studies so far; another process may add to them."""
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
