"""All tables and figures, one after another or one on each GPU: ``python -m experiments``."""

import os
import queue
import subprocess
import sys
import threading
from typing import Annotated

import click
import torch
import typer

from experiments.table import Only, Root, Scale

TABLES = (
    "table1_baselines",
    "learning_rates",
    "long_training",
    "table2_centralized",
    "table3_architectures",
    "untrained",
    "recipe",
    "alignment",
    "shared_size",
    "weak_priors",
    "continual",
    "prior_data",
    "overhead",
    "tsne",
    "redundancy",
    "uniformity_as_judge",
    "election",
    "solvers",
    "privacy",
    "privacy_students",
    "audit",
    "audit_spreads",
)


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(click_type=click.Choice(TABLES), help="All tables unless given."),
    ] = None,
    scale: Scale = "cpu",
    root: Root = None,
    only: Only = None,
    gpus: Annotated[int, typer.Option(help="GPUs, each with a table at a time; 0: none.")] = 0,
) -> None:
    """Measure what is missing of every table; the same command goes on where it was stopped."""
    if gpus > (here := torch.cuda.device_count()):
        raise typer.BadParameter(f"this host has {here} GPUs", param_hint="--gpus")
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names or TABLES:
        waiting.put(name)
    options = ["--scale", scale, *(["--root", root] if root else [])]
    options += ["--only", only] if only else []
    failed: list[str] = []
    workers = [
        threading.Thread(target=work, args=(waiting, options, gpu, failed))
        for gpu in (range(gpus) if gpus else [None])
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise SystemExit(f"not finished: {', '.join(sorted(failed))}")


def work(
    waiting: queue.SimpleQueue[str], options: list[str], gpu: int | None, failed: list[str]
) -> None:
    """Run what is waiting until nothing is, on one GPU; names that fail are added to ``failed``."""
    device = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": visible(gpu)}
    while True:
        try:
            name = waiting.get_nowait()
        except queue.Empty:
            return
        command = [sys.executable, "-m", f"experiments.{name}", *options]
        if subprocess.run(command, env=os.environ | device, check=False).returncode:
            failed.append(name)


def visible(gpu: int) -> str:
    """Return the name of the gpu-th GPU of those that this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[gpu] if given else str(gpu)


if __name__ == "__main__":
    typer.run(main)
