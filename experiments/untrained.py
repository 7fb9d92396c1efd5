"""What an architecture's features are worth before training: ``python -m experiments.untrained``.

As built, batch norm does nothing: its running means are 0, its variances 1. A training never sees
that network, for its first step normalises by the statistics of the batch.
"""

from dataclasses import replace

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from coopt_fl.core.runtime import pick_device
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.images import Squares
from coopt_fl.students.probe import random_student
from experiments.table import Cell, Lab, Study, experiment


def settings(study: Study) -> list[Cell]:
    """Return two rows for each architecture of ``table3_architectures``."""
    return [
        {"model": model, "batch norm": how}
        for model in study.models
        for how in ("as built", "of the images")
    ]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Probe the student that a training would begin with."""
    config = replace(lab.study.student, model=cell["model"])
    student = random_student(config, lab.study.data, cell["seed"])
    if cell["batch norm"] == "of the images":
        take_statistics(student, lab)
    judged = lab.judge(student)
    return {"accuracy": judged.accuracy, "spread": judged.spread}


@torch.no_grad()
def take_statistics(student: LoadedStudent, lab: Lab) -> None:
    """Give batch norm the mean statistics of the training images, in batches as a training's."""
    norms = [layer for layer in student.model.modules() if isinstance(layer, _BatchNorm)]
    for norm in norms:
        norm.momentum = None  # their mean over all batches
        norm.train()
    device, source = pick_device(), lab.source
    student.model.to(device)
    images = Squares(source, source.ids, student.model.image_size, device, "raise")
    shuffled = images.rows[
        torch.randperm(len(images.rows), generator=torch.Generator().manual_seed(0))
    ]
    size = lab.study.student.batch_size
    for batch, _ in images.batches(shuffled[: len(shuffled) // size * size], size):
        student.features(batch)
    student.model.eval()


app = experiment(__name__, settings, measure)
