"""Students before any training, with batch norm as built or with the images' statistics."""

from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from coopt_fl.core.runtime import pick_device
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.images import Squares
from experiments.lab import Lab
from experiments.table import Cell, table

NORMS = ("as built", "of the images")


@table(lambda study: [{"model": m, "batch norm": how} for m in study.models for how in NORMS])
def untrained(lab: Lab, cell: Cell) -> Cell:
    """The accuracy of ``table3_architectures`` before training.

    As built, batch norm is the identity: its running means are 0, its variances 1. A training never
    sees that network, because its first step normalises by the statistics of the batch.
    """
    adapted = cell["batch norm"] == "of the images"
    student = untrained_student(lab, cell["seed"], adapted=adapted, model=cell["model"])
    return dict(vars(lab.judge(student)))


def untrained_student(
    lab: Lab, seed: int, *, adapted: bool = True, **changes: Any
) -> LoadedStudent:
    """Return a student before any training.

    Args:
        lab: The study.
        seed: Seed of the weights.
        adapted: Whether batch norm has the statistics of the images, instead of means 0 and
            variances 1.
        changes: Changes of the study's ``student``.
    """
    student = lab.untrained(seed, **changes)
    if adapted:
        _take_statistics(student, lab)
    return student


@torch.no_grad()
def _take_statistics(student: LoadedStudent, lab: Lab) -> None:
    """Set batch norm's statistics to their means over batches of the training images."""
    for layer in student.model.modules():
        if isinstance(layer, _BatchNorm):
            layer.momentum = None  # the mean over all batches
            layer.train()
    device, size = pick_device(), lab.study.student.batch_size
    student.model.to(device)
    images = Squares(lab.source, lab.all, student.model.image_size, device, "raise")
    order = torch.randperm(len(images.rows), generator=torch.Generator().manual_seed(0))
    for batch, _ in images.batches(images.rows[order[: len(order) // size * size]], size):
        student.features(batch)
    student.model.eval()
