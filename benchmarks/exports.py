"""Which students can be trained, and exported where: ``python -m benchmarks.exports [NAME]...``.

Tries the named students, or the smallest model of each family in timm and every model of
torchvision, with random weights, or after ``--steps`` of training. A student counts as trainable if
one backward pass succeeds, an export if it gives the checkpoint's features. The same command
resumes after an interruption, and prints the table of docs/export.md, which is of random weights.
"""

import json
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from coopt_fl.core.errors import CooptError
from coopt_fl.core.runtime import channels_last
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.export import TARGETS, export_student
from coopt_fl.students.images import resizing
from coopt_fl.students.loop import make_optimizer
from coopt_fl.students.models import UNUSABLE, Student, build_student

RESULTS = Path(__file__).parent / "results" / "exports.jsonl"
SIDE = 224

EVERY = ("train", *TARGETS)
"""What is tried with each student."""

Row = dict[str, Any]


def smallest(known: set[str]) -> Iterator[str]:
    """Yield the smallest timm model of each family without a known one, and torchvision's."""
    import timm
    from torchvision import models

    for module in sorted(timm.list_modules()):
        names = timm.list_models(module=module, exclude_filters="test_*")
        if names and known.isdisjoint(f"timm:{name}" for name in names):
            yield f"timm:{min(names, key=parameters)}"
    yield from models.list_models(module=models, exclude=UNUSABLE)


def parameters(name: str) -> float:
    """Return the number of parameters of a timm model, without allocating them."""
    import timm

    try:
        with torch.device("meta"):
            return sum(one.numel() for one in timm.create_model(name).parameters())
    except Exception:  # some models compute while they are built, which the meta device cannot
        return float("inf")


def tried(name: str, steps: int) -> Row:
    """Try training and each export of a student; return the seconds or the error of each."""
    import timm

    library, _, architecture = name.rpartition(":")
    config = timm.get_pretrained_cfg(architecture) if library else None
    for side in dict.fromkeys([SIDE, config.input_size[-1] if config else SIDE]):
        row: Row = {"student": name, "side": side, "steps": steps}
        try:
            model = build_student(name, side, 0)
            break
        except CooptError as error:
            row["train"] = str(error)
    else:
        return row
    row["parameters"] = sum(one.numel() for one in model.parameters())
    row["train"] = _outcome(lambda: _train(model, steps))
    student = LoadedStudent(model, resizing(side), {})
    for target in TARGETS[:1] + TARGETS[2:] if library else TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            export = partial(export_student, student, Path(), target, Path(folder))
            row[target] = _outcome(export)
    return row


def _outcome(work: Callable[[], object]) -> float | str:
    """Return the seconds that ``work`` takes, or its error message."""
    start = time.perf_counter()
    try:
        work()
    except CooptError as error:
        return str(error)
    except Exception as error:
        message = re.sub(rf"{tempfile.gettempdir()}/[^ ]*/", "", str(error))
        return f"{type(error).__name__}: {message}"
    return round(time.perf_counter() - start, 1)


def _train(model: Student, steps: int) -> None:
    """Do ``steps`` of training, which map two images of noise to noise, and one more pass."""
    channels_last(model.train())
    images = torch.rand(2, 3, model.image_size, model.image_size)
    images, targets = images.to(memory_format=torch.channels_last), torch.randn(2, model.width)
    optimizer = make_optimizer(model, lr=3e-4, weight_decay=0.0)
    for step in range(steps + 1):
        torch.autograd.backward((model(images) - targets).square().mean())
        if step < steps:
            optimizer.step()
            optimizer.zero_grad()


def table(rows: list[Row]) -> str:
    """Return Markdown: the random students with which all succeeded, and a table of failures."""
    rows = [row for row in rows if not row["steps"]]
    failed = [(row, what) for row in rows for what in EVERY if isinstance(row.get(what), str)]
    whole = [f"`{row['student']}`" for row in rows if all(row is not one for one, _ in failed)]
    lines = [f"| `{row['student']}` | {what} | {row[what]} |" for row, what in failed]
    heading = ["", "| student | what fails | why |", "|---|---|---|"] if failed else []
    return "\n".join([", ".join(sorted(whole)), *heading, *lines])


def read(file: Path) -> list[Row]:
    """Return the rows of a file of JSON lines; none if there is no file."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def main(
    names: Annotated[list[str] | None, typer.Argument()] = None,
    out: Annotated[Path, typer.Option()] = RESULTS,
    steps: Annotated[int, typer.Option(help="Steps of training before the export.")] = 0,
) -> None:
    """Try all students that ``out``, a file of JSON lines, does not have yet."""
    warnings.filterwarnings("ignore")
    known = {row["student"] for row in read(out) if row["steps"] == steps}
    for name in names or smallest(known):
        if name not in known:
            row = tried(name, steps)
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    print(table(read(out)))


if __name__ == "__main__":
    typer.run(main)
