"""All tables and figures: ``python -m experiments [NAME...] --scale cpu --root DIR``.

One is measured in this process, several one after another, or one on each GPU.
``python -m experiments queue`` does what is worth most in a given time.
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
    audit,
    backlog,
    continual,
    costs,
    crowds,
    fedavg,
    heterogeneous,
    lightly,
    ours,
    paper,
    privacy,
    recipes,
    solvers,
    transfer,
)
from experiments.command import Scale, check, run
from experiments.scales import SCALES
from experiments.table import FIGURES, RESULTS, Cell, Table

STUDIES = (
    *(paper, ours, lightly, crowds, heterogeneous, continual, solvers, privacy, audit),
    *(costs, fedavg, architectures, recipes, transfer),
)

TABLES: dict[str, Table] = {
    name: one for module in STUDIES for name, one in vars(module).items() if isinstance(one, Table)
}
"""By name."""


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help=f"{', '.join(TABLES)} (default: all)."),
    ] = None,
    scale: Scale = "cpu",
    root: Annotated[
        str | None, typer.Option(help="Folder of the images; of several studies, of their folders.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="One study of the scale.")] = None,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    figures: Annotated[Path, typer.Option(help="Folder of the figures.")] = FIGURES,
    gpus: Annotated[int, typer.Option(help="GPUs, each with a table at a time; 0: none.")] = 0,
    part: Annotated[
        str | None,
        typer.Option(help="Only the cells of one table with these settings, as JSON; no figure."),
    ] = None,
    draw: Annotated[
        bool, typer.Option("--draw", help="Only draw the figure of what is known of each.")
    ] = False,
) -> None:
    """Measure what is missing of every table; the same command goes on where it was stopped."""
    check("table", names or [], TABLES)
    check("--scale", [scale], SCALES)
    if draw:
        known = [name for name in TABLES if (results / f"{name}-{scale}.json").exists()]
        for name in names or known:
            TABLES[name].picture(scale, results, figures)
        return
    if gpus > (here := torch.cuda.device_count()):
        raise ConfigError(f"--gpus {gpus} is more than the {here} of this host")
    if names and len(names) == 1 and not gpus:
        TABLES[names[0]].run(scale, root, only, results, figures, _part(part))
        return
    if part is not None:
        raise ConfigError("--part is of one table: name it, and leave out --gpus")
    options = ["--scale", scale, "--results", str(results), "--figures", str(figures)]
    for option, value in (("--root", root), ("--only", only)):
        options += [option, value] if value else []
    if failed := work(names or list(TABLES), options, gpus):
        raise CooptError(f"not finished, see above: {', '.join(sorted(failed))}")


def _part(text: str | None) -> Cell | None:
    """Return the settings of the cells that ``--part`` asks for."""
    try:
        return None if text is None else dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f'--part is a JSON object, such as \'{{"objective": "byol"}}\', not {text!r}'
        ) from error


def work(names: Sequence[str], options: list[str], gpus: int) -> list[str]:
    """Measure each table in a process of its own, one at a time on each GPU; return who failed."""
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
