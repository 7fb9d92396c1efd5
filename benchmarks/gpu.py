"""All checks that need a GPU, most important first: ``python -m benchmarks.gpu --root DIR``.

There are two stages of a few minutes each: tests and benchmarks, then a first result on all of
CIFAR-10. Each step has a log, and its outcome is written as soon as it ends. ``--toy`` runs small
versions of the steps on any host, to check the command itself.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from coopt_fl.bench.suite import results_of
from coopt_fl.core.errors import ConfigError, CooptError
from coopt_fl.core.files import make_folder, write_json
from experiments.command import run

STAGES = {1: 300.0, 2: 360.0}
"""Time limit of each stage in seconds."""


@dataclass(frozen=True)
class Step:
    """A command of a stage; ``words`` are the arguments of ``python -m``."""

    stage: int
    name: str
    words: tuple[str, ...]


def steps(out: Path, root: str | None, toy: bool) -> Iterator[Step]:
    """Yield the steps, most important first."""
    yield Step(1, "tests", ("pytest", "-n", "0", "tests/gpu"))
    rows = ("imports",) if toy else ("overlap", "optimize", "handwritten", "student", "sharing")
    yield Step(1, "bench", ("coopt_fl", "bench", *rows, "--out", f"{out}/bench.json"))
    table = ("experiments", "equal_seconds", "--results", str(out), "--figures", str(out))
    scale = ("--scale", "smoke") if toy else ("--scale", "moment", "--root", str(root))
    yield Step(2, "equal_seconds", (*table, *scale))


def main(
    out: Annotated[
        Path, typer.Option(help="Folder for the results; earlier ones are replaced.")
    ] = Path("experiments/results/gpu"),
    root: Annotated[str | None, typer.Option(help="Folder of CIFAR-10 as Parquet files.")] = None,
    toy: Annotated[
        bool, typer.Option("--toy", help="Run small versions of the steps, even without a GPU.")
    ] = False,
) -> None:
    """Run both stages on the first GPU; exit with code 1 if a step failed."""
    if not toy and not torch.cuda.is_available():
        raise ConfigError("there is no GPU; `--toy` runs small versions of the steps without one")
    if not toy and root is None:
        raise ConfigError("stage 2 needs --root DIR, the folder of CIFAR-10 as Parquet files")
    make_folder(out)
    found = results_of(["python -m benchmarks.gpu", *sys.argv[1:]])
    left = dict(STAGES)
    for step in steps(out, root, toy):
        row = take(step, out, left[step.stage])
        left[step.stage] -= row["seconds"]
        found["rows"].append(row)
        write_json(out / "gpu.json", found)
        typer.echo(f"stage {step.stage}, {step.name}: {row['outcome']}, {row['seconds']:.0f} s")
    failed = [row["name"] for row in found["rows"] if row["outcome"] != "done"]
    if failed:
        raise CooptError(f"not done: {', '.join(failed)}; the logs are in {out}")


def take(step: Step, out: Path, seconds: float) -> dict[str, Any]:
    """Run one step for at most ``seconds``; return its row."""
    started = time.perf_counter()
    with (out / f"{step.name}.log").open("wb") as log:
        try:
            done = subprocess.run(
                [sys.executable, "-m", *step.words],
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=max(seconds, 1.0),
            )
            outcome = "done" if done.returncode == 0 else f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            outcome = "out of time"
    return asdict(step) | {"outcome": outcome, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    sys.exit(run(main))
