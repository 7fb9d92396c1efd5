"""Which students can be trained and exported where: ``python -m benchmarks.exports``.

The students that are named, or the smallest of each family of timm's and each of torchvision's
models, with random weights. A student can be trained if it takes a step; an export counts if its
features are the checkpoint's. The same command continues, and prints the table of docs/export.md.
"""

import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from coopt_fl.core.errors import CooptError
from coopt_fl.core.runtime import channels_last
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.export import TARGETS, export_student
from coopt_fl.students.images import resizing
from coopt_fl.students.models import UNUSABLE, Student, build_student

RESULTS = Path(__file__).parent / "results" / "exports.jsonl"
SIDE = 224

EVERY = ("train", *TARGETS)
"""What is tried."""

Row = dict[str, Any]


def smallest(known: set[str]) -> Iterator[str]:
    """Yield the student of each family of which none is known."""
    import timm
    from torchvision import models

    for module in sorted(timm.list_modules()):
        names = timm.list_models(module=module, exclude_filters="test_*")
        if names and known.isdisjoint(f"timm:{name}" for name in names):
            yield f"timm:{min(names, key=parameters)}"
    yield from models.list_models(module=models, exclude=UNUSABLE)


def parameters(name: str) -> float:
    """Return how many a timm model has, without making them."""
    import timm

    try:
        with torch.device("meta"):
            return sum(one.numel() for one in timm.create_model(name).parameters())
    except Exception:  # some compute while they are built
        return float("inf")


def tried(name: str) -> Row:
    """Return, of a student's training and of each export, the seconds, or why it failed."""
    import timm

    library, _, architecture = name.rpartition(":")
    config = timm.get_pretrained_cfg(architecture) if library else None
    for side in dict.fromkeys([SIDE, config.input_size[-1] if config else SIDE]):
        row: Row = {"student": name, "side": side}
        try:
            model = build_student(name, side, 0)
            break
        except CooptError as error:
            row["train"] = str(error)
    else:
        return row
    row["parameters"] = sum(one.numel() for one in model.parameters())
    row["train"] = _outcome(lambda: _step(model))
    student = LoadedStudent(model, resizing(side), {})
    for target in TARGETS[:1] + TARGETS[2:] if library else TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            row[target] = _outcome(
                lambda to=target, at=folder: export_student(student, Path(), to, Path(at))
            )
    return row


def _outcome(work: Callable[[], object]) -> float | str:
    """Return the seconds that work takes, or its error."""
    start = time.perf_counter()
    try:
        work()
    except CooptError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return round(time.perf_counter() - start, 1)


def _step(model: Student) -> None:
    """Take gradients of a student as it is trained."""
    channels_last(model.train())
    images = torch.rand(2, 3, model.image_size, model.image_size)
    torch.autograd.backward(model(images.to(memory_format=torch.channels_last)).square().mean())


def table(rows: list[Row]) -> str:
    """Return as Markdown which students went everywhere, and for the others what failed and why."""
    failed = [(row, what) for row in rows for what in EVERY if isinstance(row.get(what), str)]
    whole = [f"`{row['student']}`" for row in rows if all(row is not one for one, _ in failed)]
    lines = [f"| `{row['student']}` | {what} | {row[what]} |" for row, what in failed]
    heading = ["", "| student | what fails | why |", "|---|---|---|"] if failed else []
    return "\n".join([", ".join(sorted(whole)), *heading, *lines])


def read(file: Path) -> list[Row]:
    """Return what a file of JSON lines has."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def main(
    names: Annotated[list[str] | None, typer.Argument()] = None,
    out: Annotated[Path, typer.Option()] = RESULTS,
) -> None:
    """Try all that ``out``, a file of JSON lines, does not have."""
    warnings.filterwarnings("ignore")
    known = {row["student"] for row in read(out)}
    for name in names or smallest(known):
        if name not in known:
            row = tried(name)
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    print(table(read(out)))


if __name__ == "__main__":
    typer.run(main)
