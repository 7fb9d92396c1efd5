"""All tables and figures: ``python -m experiments [NAME...] --scale cpu --root DIR``.

A single table is measured in this process; several run in processes of their own, one after
another or one per GPU. ``python -m experiments queue`` measures the most valuable cells in a given
time.
"""

import json
import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import torch
import typer

from coopt_fl.core.errors import ConfigError, CooptError
from experiments import (
    architectures,
    assignments,
    audit,
    backlog,
    continual,
    contribution,
    costs,
    elections,
    fedavg,
    heterogeneous,
    lightly,
    ours,
    paper,
    privacy,
    recipes,
    solvers,
    transfer,
    untrained,
)
from experiments.command import Scale, check, run
from experiments.scales import SCALES
from experiments.table import FIGURES, RESULTS, Cell, Table

STUDIES = (
    *(paper, ours, lightly, elections, continual, solvers, privacy, audit),
    *(heterogeneous, assignments, contribution),
    *(costs, fedavg, architectures, recipes, transfer, untrained),
)

TABLES: dict[str, Table] = {
    name: one for module in STUDIES for name, one in vars(module).items() if isinstance(one, Table)
}
"""All tables by name."""


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help=f"{', '.join(TABLES)} (default: all)."),
    ] = None,
    scale: Scale = "cpu",
    root: Annotated[
        str | None,
        typer.Option(
            help="Folder of the images; if several studies need one, with a subfolder for each."
        ),
    ] = None,
    only: Annotated[str | None, typer.Option(help="Measure only this study of the scale.")] = None,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    figures: Annotated[Path, typer.Option(help="Folder of the figures.")] = FIGURES,
    gpus: Annotated[
        int, typer.Option(help="Number of GPUs, each measuring one table at a time; 0: none.")
    ] = 0,
    part: Annotated[
        str | None,
        typer.Option(
            help="Measure only the cells of one table with these settings, given as JSON; draw no "
            "figure."
        ),
    ] = None,
    draw: Annotated[
        bool, typer.Option("--draw", help="Measure nothing; draw figures of the stored results.")
    ] = False,
) -> None:
    """Measure all missing cells of the tables; the same command resumes after an interruption."""
    check("table", names or [], TABLES)
    check("--scale", [scale], SCALES)
    if draw:
        known = [name for name in TABLES if (results / f"{name}-{scale}.json").exists()]
        if not (names or known):
            raise ConfigError(f"there are no results to draw in {results} at --scale {scale}")
        for name in names or known:
            TABLES[name].picture(scale, results, figures)
        return
    if gpus > (here := torch.cuda.device_count()):
        raise ConfigError(f"--gpus {gpus} is more than the {here} GPU(s) of this host")
    if names and len(names) == 1 and not gpus:
        TABLES[names[0]].run(scale, root, only, results, figures, _part(part))
        return
    if part is not None:
        raise ConfigError("--part needs exactly one table: name it, and leave out --gpus")
    options = ["--scale", scale, "--results", str(results), "--figures", str(figures)]
    for option, value in (("--root", root), ("--only", only)):
        options += [option, value] if value else []
    if failed := work(names or list(TABLES), options, gpus):
        raise CooptError(f"not finished, see above: {', '.join(sorted(failed))}")


def _part(text: str | None) -> Cell | None:
    """Parse ``--part``: the settings of the cells to measure."""
    try:
        return None if text is None else dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f'--part is a JSON object, such as \'{{"objective": "byol"}}\', not {text!r}'
        ) from error


def work(names: Sequence[str], options: list[str], gpus: int) -> list[str]:
    """Measure each table in its own process, one at a time per GPU; return the failed ones."""
    free: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    usable = given.split(",") if given else [str(gpu) for gpu in range(gpus)]
    for gpu in usable[:gpus]:
        free.put({"CUDA_VISIBLE_DEVICES": gpu})
    if not gpus:
        free.put({})

    def succeeds(name: str) -> bool:
        device = free.get()
        command = [sys.executable, "-m", "experiments", name, *options]
        done = subprocess.run(command, env=os.environ | device, check=False)
        free.put(device)
        return done.returncode == 0

    with ThreadPoolExecutor(max(gpus, 1)) as pool:
        good = dict(zip(names, pool.map(succeeds, names), strict=True))
    return [name for name in good if not good[name]]


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(run(backlog.main, words[1:]) if words[:1] == ["queue"] else run(main, words))
