"""Objectives without negatives: BYOL, SimSiam, DINO."""

import math
from copy import deepcopy

import torch
from lightly.loss import DINOLoss, NegativeCosineSimilarity
from lightly.models.modules import (
    BYOLPredictionHead,
    BYOLProjectionHead,
    DINOProjectionHead,
    SimSiamPredictionHead,
    SimSiamProjectionHead,
)
from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn

from coopt_fl.students.augment import published
from coopt_fl.students.models import Student
from coopt_fl.students.objectives.objective import Objective, Setting, Teacher, in_float32


def rising(base: float, progress: float) -> float:
    """Return a momentum that rises from ``base`` to 1 along a half cosine."""
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2


class BYOL(Objective):
    """Grill et al. 2020: predict a momentum teacher's output for the other view.

    Momentum from 0.996, or from 0.99 for small images, up to 1.
    """

    def __init__(self, student: Student, setting: Setting) -> None:
        super().__init__(student, published.BYOL, setting)
        self.head = BYOLProjectionHead(student.width, 4096, 256)
        self.predictor = BYOLPredictionHead(256, 4096, 256)
        self.teacher = Teacher(deepcopy(student), deepcopy(self.head))
        self.criterion = NegativeCosineSimilarity()
        self.momentum = 0.99 if self.small else 0.996

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the negative cosine similarity, the mean of both directions."""
        said = [self.predictor(self.head(self.student(view))) for view in views]
        taught = [self.teacher(view) for view in reversed(views)]
        losses = [in_float32(self.criterion, *pair) for pair in zip(said, taught, strict=True)]
        return torch.stack(losses).mean()

    def after_step(self, progress: float) -> None:
        """Move the teacher."""
        self.teacher.follow(rising(self.momentum, progress), self.student, self.head)


class SimSiam(Objective):
    """Chen and He 2021: BYOL whose teacher is the student itself, without a gradient.

    A projection of three layers, or of two for small images (appendix D).
    """

    def __init__(self, student: Student, setting: Setting) -> None:
        super().__init__(student, published.SIMSIAM, setting)
        self.head = (_two_layers if self.small else SimSiamProjectionHead)(
            student.width, 2048, 2048
        )
        self.predictor = SimSiamPredictionHead(2048, 512, 2048)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the negative cosine similarity, the mean of both directions."""
        projected = [self.head(self.student(view)) for view in views]
        losses = [
            in_float32(self.criterion, self.predictor(own), other.detach())
            for own, other in zip(projected, reversed(projected), strict=True)
        ]
        return torch.stack(losses).mean()


def _two_layers(width: int, hidden: int, out: int) -> ProjectionHead:
    """Return SimSiam's projection without its middle layer."""
    return ProjectionHead(
        [
            (width, hidden, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)),
            (hidden, out, nn.BatchNorm1d(out, affine=False), None),
        ]
    )


class DINO(Objective):
    """Caron et al. 2021: predict the clusters of a momentum teacher, centred against collapse.

    65,536 outputs; the teacher sees the two global views only. Its temperature is 0.04, the
    authors' for ResNet-50, and the last layer is frozen for the first 1% of the steps (1 epoch
    of 100). Momentum from 0.996 up to 1. For small images 2,048 outputs, batch norm in the head
    and a momentum from 0.99, as lightly and ReLA have it on CIFAR-10: without batch norm, outputs
    become equal for all samples within a few epochs, whose probe is then no better than a random
    backbone's.
    """

    staged = True

    def __init__(self, student: Student, setting: Setting) -> None:
        super().__init__(student, published.DINO, setting)
        outputs = 2048 if self.small else 65_536
        self.head = DINOProjectionHead(student.width, 2048, 256, outputs, batch_norm=self.small)
        copied = DINOProjectionHead(student.width, 2048, 256, outputs, batch_norm=self.small)
        copied.load_state_dict(self.head.state_dict())
        self.teacher = Teacher(deepcopy(student), copied)
        self.criterion = DINOLoss(outputs)
        self.momentum = 0.99 if self.small else 0.996

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the cross-entropy between the teacher's and the student's clusters."""
        self.head.last_layer.weight_v.requires_grad_(progress >= 0.01)
        taught = [self.teacher(view) for view in views[:2]]
        said = [self.head(self.student(view)) for view in views]
        return in_float32(self.criterion, taught, said)

    def after_step(self, progress: float) -> None:
        """Move the teacher."""
        self.teacher.follow(rising(self.momentum, progress), self.student, self.head)
