"""Whether an accelerator has to wait for images: optimization and training on a simulated one.

The simulated accelerator takes as long for a batch as reading one takes, the case in which overlap
is hardest: if both work all the time, the whole takes as long as either alone. The time per batch
is set once for each source.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from coopt_fl.bench.inputs import KINDS, pictures
from coopt_fl.bench.measure import Case, Reach, Row, Seconds, in_turn, not_here, spread
from coopt_fl.bench.optimization import Setting, long_run, path
from coopt_fl.bench.simulated import SIDE, SimulatedLink, Timed, prior
from coopt_fl.bench.student import in_memory
from coopt_fl.config.schema import Config, StudentConfig
from coopt_fl.core.runtime import compute
from coopt_fl.data import Source, batches
from coopt_fl.students.images import resizing
from coopt_fl.students.loop import Training
from coopt_fl.students.session import devices_for

if TYPE_CHECKING:
    from lightning_fabric import Fabric

REPEATS = 5
REACH = Reach(1.1, at_least=False)
LEAST_SECONDS = 0.02
"""Shortest time per batch: about what training on 64 images of 32 px takes on a GPU."""

ROWS = 1024
BATCH = 16
SETTING = Setting("simulated", "cpu", BATCH, 64, 3, 12, "float32", 256)
STUDENT = StudentConfig(
    model="python:coopt_fl.bench.simulated:student",
    head="linear",
    augment="none",
    batch_size=BATCH,
    image_size=SIDE,
    epochs=1000,
    precision="float32",
)


def overlap() -> Iterator[Row]:
    """Yield two rows for each kind of source."""
    for kind in KINDS:
        optimize, train = _case("optimize", kind), _case("train", kind)
        if reason := not_here("cpu"):
            yield from (optimize.skipped(reason), train.skipped(reason))
            continue
        with pictures(kind, ROWS) as (source, _), compute(1):
            yield _optimizing(optimize, source)
            with devices_for(Config(student=STUDENT), 1) as fabric:
                yield _training(train, source, fabric)


def _case(work: str, kind: str) -> Case:
    path = {"optimize": "optimize", "train": "a training epoch"}[work]
    return Case(
        f"overlap/{work}/{kind}",
        f"{path}, {KINDS[kind]}, on a simulated accelerator, batches of {BATCH}",
        "reading alone or the accelerator alone, whichever takes longer",
        REACH,
    )


def _optimizing(case: Case, source: Source) -> Row:
    model = Timed()
    encoder = prior(model)
    steps = SETTING.rows // BATCH
    fit = None if source.image_size else encoder.preprocess.square

    def reading() -> float:
        read = batches(source, long_run(source, SETTING), BATCH, fit=fit)
        for _ in islice(read, SETTING.warm * SETTING.block_rows // BATCH):
            pass
        started = time.perf_counter()
        for _ in islice(read, steps):
            pass
        return time.perf_counter() - started

    ours = path(encoder, source, SETTING, SimulatedLink(model.accelerator))
    return _row(case, ours, reading, model, steps)


def _training(case: Case, source: Source, fabric: Fabric) -> Row:
    model, numbers = Timed(), iter(range(STUDENT.epochs))
    dataset, link = in_memory(source), SimulatedLink(model.accelerator)
    training = Training(fabric, dataset, source, STUDENT, "raise", seed=0, link=link)
    backbone = training.student.model.backbone
    assert isinstance(backbone, Timed)
    backbone.accelerator, backbone.seconds = model.accelerator, 0.0
    order, square = np.random.default_rng(0).permutation(source.ids), resizing(SIDE).square

    def reading() -> float:
        started = time.perf_counter()
        for _ in batches(source, [order], BATCH, fit=square):
            pass
        return time.perf_counter() - started

    def epoch() -> float:
        started = time.perf_counter()
        training.epoch(next(numbers))
        model.accelerator.given().synchronize()
        return time.perf_counter() - started

    return _row(case, epoch, reading, backbone, len(source) // BATCH)


def _row(case: Case, ours: Seconds, reading: Seconds, model: Timed, steps: int) -> Row:
    """Set the accelerator's time per batch, measure, and return the row."""
    reading()
    model.seconds = max(LEAST_SECONDS, reading() / steps)
    whole, read = in_turn(ours, reading, REPEATS)
    alone = np.maximum(read, model.seconds * steps)
    return case.measured(
        spread(whole / alone),
        seconds=spread(whole),
        reading_seconds=spread(read),
        accelerator_seconds=round(model.seconds * steps, 3),
    )
