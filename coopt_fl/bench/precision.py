"""An epoch of training in bfloat16 against float32, on a CPU with bfloat16 instructions."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from coopt_fl.bench.inputs import photograph
from coopt_fl.bench.measure import Case, Row, in_turn, not_here, spread, timed
from coopt_fl.bench.student import epochs_of
from coopt_fl.config.schema import Config, StudentConfig
from coopt_fl.core.runtime import has_bfloat16
from coopt_fl.data.source import ArraySource
from coopt_fl.students.session import devices_for

REPEATS = 4
BATCH = 64
TRAININGS = (
    ("convnet:32", 512, 32),
    ("convnet:64", 256, 32),
    ("convnet:32", 256, 64),
    ("resnet18", 128, 32),
    ("convnet:64", 512, 8),
)
"""Student, number of images in an epoch, and image size in pixels."""


def precision() -> Iterator[Row]:
    """Yield a row for each training: the speed-up of bfloat16 over float32."""
    for model, images, side in TRAININGS:
        case = Case(
            f"precision/{model}/{images}x{side}",
            f"an epoch of {model} in bfloat16, {images} images of {side} px, batches of {BATCH}",
            "the same in float32",
        )
        reason = not_here("cpu") or (None if has_bfloat16() else "no-bfloat16")
        yield case.skipped(reason) if reason else _row(case, model, images, side)


def _row(case: Case, model: str, images: int, side: int) -> Row:
    pixels = np.stack([photograph(seed, (side, side)) for seed in range(images)])
    source = ArraySource("array", pixels)
    exact = StudentConfig(model=model, batch_size=BATCH, precision="float32")
    reduced = replace(exact, precision="bfloat16")
    with (
        devices_for(Config(student=reduced), 1) as one,
        devices_for(Config(student=exact), 1) as other,
    ):
        bfloat16, float32 = in_turn(
            timed(epochs_of(one, source, reduced)), timed(epochs_of(other, source, exact)), REPEATS
        )
    return case.measured(
        spread(float32 / bfloat16), epoch_s=spread(bfloat16), float32_epoch_s=spread(float32)
    )
