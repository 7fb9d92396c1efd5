"""Which students can be exported where: ``python -m benchmarks.exports --out FILE``.

The students that are named, or the smallest of each family of timm's and each of torchvision's
models, with random weights; an export counts if its features are the checkpoint's. The same command
continues.
"""

import json
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from coopt_fl.core.errors import CooptError
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.export import TARGETS, export_student
from coopt_fl.students.images import resizing
from coopt_fl.students.models import UNUSABLE, build_student

SIDE = 224


def smallest() -> Iterator[str]:
    """Yield the student of each family."""
    import timm
    from torchvision import models

    for module in sorted(timm.list_modules()):
        names = timm.list_models(module=module, exclude_filters="test_*")
        if names:
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


def tried(name: str, targets: tuple[str, ...]) -> dict[str, Any]:
    """Return the side of the images, and for each target the seconds, or why it failed."""
    import timm

    library, _, architecture = name.rpartition(":")
    config = timm.get_pretrained_cfg(architecture) if library else None
    for side in dict.fromkeys([SIDE, config.input_size[-1] if config else SIDE]):
        try:
            model = build_student(name, side, 0)
            break
        except CooptError as error:
            found: dict[str, Any] = {"side": side, "not a student": str(error)}
    else:
        return found
    found = {"side": side, "parameters": sum(one.numel() for one in model.parameters())}
    student = LoadedStudent(model.eval(), resizing(side), {})
    for target in targets:
        start = time.perf_counter()
        try:
            with tempfile.TemporaryDirectory() as folder:
                export_student(student, Path("checkpoint.pt"), target, Path(folder))
            found[target] = round(time.perf_counter() - start, 1)
        except Exception as error:
            found[target] = f"{type(error).__name__}: {error}"
    return found


def main(
    out: Annotated[Path, typer.Option()],
    names: Annotated[list[str] | None, typer.Argument()] = None,
) -> None:
    """Try all that ``out``, a file of JSON lines, does not have."""
    warnings.filterwarnings("ignore")
    lines = out.read_text().splitlines() if out.exists() else []
    known = {json.loads(line)["student"] for line in lines}
    for name in names or smallest():
        if name in known:
            continue
        targets = TARGETS[:1] + TARGETS[2:] if name.startswith("timm:") else TARGETS
        row = {"student": name, **tried(name, targets)}
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


if __name__ == "__main__":
    typer.run(main)
