"""Training a student, against steps without data and augmentation, and against a baseline."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from coopt_fl.bench.inputs import CIFAR, pictures, unfinished
from coopt_fl.bench.measure import Case, Reach, Row, in_turn, not_here, spread, timed
from coopt_fl.config.schema import Config, StudentConfig
from coopt_fl.core.runtime import channels_last
from coopt_fl.data import Source
from coopt_fl.optimized.read import OptimizedDataset
from coopt_fl.students.initial import initial_student
from coopt_fl.students.loop import Training, make_optimizer
from coopt_fl.students.objectives import Setting, make_objective
from coopt_fl.students.session import devices_for

if TYPE_CHECKING:
    from lightning_fabric import Fabric

REPEATS = 5
DIM = 256
STEPS = {"cpu": 8, "cuda": 200}
STUDENTS = {
    "cpu": StudentConfig(model="convnet:32", batch_size=64),
    "cuda": StudentConfig(model="resnet18", batch_size=256),
}
REACHES = {"cpu": Reach(0.85), "cuda": Reach(0.90)}
EPOCHS = 1000
"""Epochs for which the learning rate schedule is set; only a few of them are run."""


def student() -> Iterator[Row]:
    """Yield both rows for each kind of device."""
    for kind in STUDENTS:
        step, versus = _cases(kind)
        if reason := not_here(kind):
            yield from (step.skipped(reason), versus.skipped(reason))
            continue
        rows = STEPS[kind] * STUDENTS[kind].batch_size
        with (
            pictures("array", rows) as (source, _),
            devices_for(Config(student=STUDENTS[kind]), 1) as fabric,
        ):
            yield _against_resident(fabric, source, kind, step)
            yield _against_byol(fabric, source, kind, versus)


def _cases(kind: str) -> tuple[Case, Case]:
    student = STUDENTS[kind]
    path = f"training {student.model} of 32 px, batches of {student.batch_size}, {student.augment}"
    step = Case(
        f"student/{kind}", path, "steps on one resident batch, not augmented", REACHES[kind]
    )
    return step, Case(f"byol/{kind}", "a BYOL step", "a CoOpt step, same harness", Reach(2.5))


def _against_resident(fabric: Fabric, source: Source, kind: str, case: Case) -> Row:
    epoch = epochs_of(fabric, source, STUDENTS[kind])
    whole, bare = in_turn(timed(epoch), timed(_resident(fabric, source, kind)), REPEATS)
    return case.measured(
        spread(bare / whole),
        steps_per_s=spread(STEPS[kind] / whole),
        roofline_steps_per_s=spread(STEPS[kind] / bare),
    )


def _against_byol(fabric: Fabric, source: Source, kind: str, case: Case) -> Row:
    if importlib.util.find_spec("lightly") is None:
        return case.skipped("no-lightly")
    ours = epochs_of(fabric, source, STUDENTS[kind])
    theirs = epochs_of(fabric, source, replace(STUDENTS[kind], objective="byol"))
    byol, coopt = in_turn(timed(theirs), timed(ours), REPEATS)
    return case.measured(
        spread(byol / coopt),
        by_operations=round(8 / 3, 3),
        byol_steps_per_s=spread(STEPS[kind] / byol),
        coopt_steps_per_s=spread(STEPS[kind] / coopt),
    )


def epochs_of(fabric: Fabric, source: Source, student: StudentConfig) -> Callable[[], object]:
    """Return a function that trains one more epoch at each call; a regression on random targets."""
    dataset = None
    if student.objective == "regression":
        dataset = in_memory(source)
    config, numbers = replace(student, epochs=EPOCHS), count()
    training = Training(fabric, dataset, source, config, "raise", seed=0)
    return lambda: training.epoch(next(numbers))


def in_memory(source: Source) -> OptimizedDataset:
    """Return an optimized dataset of random targets for a source."""
    targets = np.random.default_rng(0).normal(size=(len(source), DIM)).astype(np.float16)
    participants = np.zeros(len(source), np.int16)
    known = replace(unfinished(len(source), DIM), rows=len(source))
    return OptimizedDataset(Path("in memory"), source.ids, targets, participants, known)


def _resident(fabric: Fabric, source: Source, kind: str) -> Callable[[], None]:
    """Return a function that does the same steps on one batch that stays on the device."""
    config, device = STUDENTS[kind], fabric.device
    targets = torch.randn(config.batch_size, DIM, device=device)
    setting = Setting(len(source), config=config, dim=DIM, targets=lambda rows: targets)
    student = initial_student(config, CIFAR[0], seed=0)
    objective = make_objective(config.objective, student, setting, seed=0)
    channels_last(objective.train())
    optimizer = make_optimizer(objective, config.lr, config.weight_decay)
    model, stepper = fabric.setup(objective, optimizer)
    batch = torch.randn(config.batch_size, 3, *CIFAR, device=device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    rows = torch.arange(config.batch_size, device=device)

    def steps() -> None:
        for _ in range(STEPS[kind]):
            fabric.backward(model([batch], rows, 0.0))
            stepper.step()
            stepper.zero_grad()

    return steps
