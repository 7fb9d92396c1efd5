"""Ours: plain regression from an image to the target of an optimized dataset."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coopt_fl.students.augment import Published, View
from coopt_fl.students.models import Student
from coopt_fl.students.objectives.objective import Objective, Task, in_float32

AUGMENTATIONS = {
    "none": View(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grey=0.0),
    "crop": View(scale=(0.64, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grey=0.0),
    "crop_flip": View(scale=(0.64, 1.0), ratio=(1.0, 1.0), flip=0.5, jitter=0.0, grey=0.0),
}
"""By ``student.augment``. Crops keep at least 0.8 of the side: a target is that of the whole
image, and a crop that loses the subject would be trained towards what it does not show."""


def cosine(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean over the batch of 1 - cos(output, target); both (B, n), a scalar in [0, 2].

    Blind to the length of a target, so that a few long ones cannot dominate.
    """
    return 1 - F.cosine_similarity(output, target, dim=1).mean()


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error over all entries; both (B, n)."""
    return F.mse_loss(output, target)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine, "mse": mse}
"""By the names that ``student.loss`` may have."""


HIDDEN = 2048
"""Width of the hidden layer of a head, as in SimSiam's projection."""


def linear(width: int, dim: int) -> nn.Module:
    """Return a linear map from features (B, width) to outputs (B, dim)."""
    return nn.Linear(width, dim)


def mlp(width: int, dim: int) -> nn.Module:
    """Return a map with one hidden layer from features (B, width) to outputs (B, dim).

    It takes over what is particular to the targets, so that the features need not hold it.
    """
    first, last = nn.Linear(width, HIDDEN, bias=False), nn.Linear(HIDDEN, dim)
    return nn.Sequential(first, nn.BatchNorm1d(HIDDEN), nn.ReLU(inplace=True), last)


HEADS: dict[str, Callable[[int, int], nn.Module]] = {"mlp": mlp, "linear": linear}
"""By the names that ``student.head`` may have."""


class Regression(Objective):
    """One view, one head, one loss (CoOpt, arXiv 2505.14117; the paper's head is linear).

    Where a target has parts, each has a head, and the loss is the mean of theirs.
    """

    def __init__(self, student: Student, task: Task) -> None:
        view = AUGMENTATIONS[task.augment]
        super().__init__(student, Published(large=(view,), small=(view,)), task)
        assert task.targets is not None
        self._parts = list(task.parts or (task.dim,))
        self.heads = nn.ModuleList(HEADS[task.head](student.width, part) for part in self._parts)
        self._loss, self._targets = LOSSES[task.loss], task.targets

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the loss between the heads' outputs and the rows' targets."""
        features = self.student(views[0])
        targets = self._targets(rows).split(self._parts, dim=1)
        losses = [
            in_float32(self._loss, head(features), target)
            for head, target in zip(self.heads, targets, strict=True)
        ]
        return torch.stack(losses).mean()
