"""An epoch of SimCLR against lightly-train's, on the same images, network, batches and cores."""

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from PIL import Image

from coopt_fl.bench.inputs import photograph
from coopt_fl.bench.measure import Case, Reach, Row, Seconds, in_turn, not_here, spread, timed
from coopt_fl.config.schema import Config, DataConfig, StudentConfig
from coopt_fl.core.runtime import has_bfloat16
from coopt_fl.data import open_source
from coopt_fl.students.loop import Training
from coopt_fl.students.session import devices_for

REPEATS = 3
IMAGES, SIDE, BATCH = 512, 96, 64
STEPS = IMAGES // BATCH
EPOCHS = 1000
"""Epochs for which our learning rate schedule is set; only a few of them are run."""

THEIR_PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed"}


def rival() -> Iterator[Row]:
    """Yield a row for each precision."""
    for precision in THEIR_PRECISION:
        case = Case(
            f"rival/simclr/{precision}",
            f"an epoch of SimCLR, resnet18, {IMAGES} images of {SIDE} px, batches of {BATCH}, "
            f"{precision}",
            "lightly-train's epoch of the same",
            Reach(1.2),
        )
        if reason := _missing(precision):
            yield case.skipped(reason)
            continue
        with tempfile.TemporaryDirectory() as name:
            yield _row(case, precision, Path(name))


def _missing(precision: str) -> str | None:
    if importlib.util.find_spec("lightly_train") is None:
        return "no-lightly-train"
    if reason := not_here("cpu"):
        return reason
    return "no-bfloat16" if precision == "bfloat16" and not has_bfloat16() else None


def _row(case: Case, precision: str, folder: Path) -> Row:
    images = folder / "images" / "train" / "class"
    images.mkdir(parents=True)
    for seed in range(IMAGES):
        Image.fromarray(photograph(seed, (SIDE, SIDE))).save(images / f"{seed}.png")
    student = StudentConfig(
        model="resnet18",
        objective="simclr",
        batch_size=BATCH,
        image_size=SIDE,
        epochs=EPOCHS,
        precision=precision,
    )
    data = DataConfig(source="imagefolder", root=str(folder / "images"))
    with devices_for(Config(student=student, data=data), 1) as fabric:
        training = Training(fabric, None, open_source(data), student, "raise", seed=0)
        theirs = _lightly_train(images, folder / "theirs", precision)
        ours, written = in_turn(timed(_next_epoch(training)), theirs, REPEATS)
    return case.measured(
        spread(written / ours), epoch_s=spread(ours), lightly_train_epoch_s=spread(written)
    )


def _next_epoch(training: Training) -> Callable[[], float]:
    numbers = count()
    return lambda: training.epoch(next(numbers))


def _lightly_train(images: Path, out: Path, precision: str) -> Seconds:
    """Return a timed epoch of lightly-train: its steps, without set-up and clean-up.

    It decodes the images again in every epoch, whereas ours stay in memory after the first, because
    that is how each is normally used.
    """
    os.environ.setdefault("LIGHTLY_TRAIN_EVENTS_DISABLED", "1")  # no telemetry
    import lightly_train
    from torchvision.models import resnet18

    def seconds() -> float:
        model, passes = resnet18(), _Passes()
        model.conv1.register_forward_pre_hook(passes)  # it calls the layers, not the model
        lightly_train.pretrain(
            out=out,
            data=images,
            model=model,
            method="simclr",
            epochs=1,
            batch_size=BATCH,
            num_workers=0,  # on two cores a worker would take one away from the training
            accelerator="cpu",
            devices=1,
            precision=THEIR_PRECISION[precision],
            transform_args={"image_size": (SIDE, SIDE)},
            overwrite=True,
        )
        each = len(passes.began) // STEPS  # forward passes per step
        return (passes.began[-each] - passes.began[0]) * STEPS / (STEPS - 1)

    return seconds


class _Passes:
    """A hook that records when each forward pass begins, also in copies of the model.

    It is not a closure, because lightly-train copies the model and pickles it with its hooks.
    """

    def __init__(self) -> None:
        self.began: list[float] = []

    def __deepcopy__(self, memo: object) -> "_Passes":
        return self

    def __call__(self, *_: object) -> None:
        self.began.append(time.perf_counter())
