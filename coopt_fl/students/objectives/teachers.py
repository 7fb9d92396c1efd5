"""Objectives without negatives: BYOL, ReLA, SimSiam, DINO."""

import math
from copy import deepcopy
from functools import partial

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
from lightly.utils import dist
from torch import Tensor, nn

from coopt_fl.students.augment import published
from coopt_fl.students.models import Student
from coopt_fl.students.objectives.objective import (
    Objective,
    Setting,
    Teacher,
    cosine,
    in_float32,
)

LOOKED_AT = 32
"""Steps of ReLA between two checks for the end of its first stage; a check waits for the device."""


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


class ReLA(BYOL):
    """Sun, Jiang, Lin 2024: regression of both views onto the target, then BYOL.

    The first stage lasts until the regression no longer improves, which is detected as in the
    authors' code: ``fast`` is a moving average of the loss (0.999, from 1), ``slow`` one of
    ``fast`` (0.99, from 2), and the stage ends when exp(-(slow - fast)) reaches 0.995. That takes
    2,400 steps if the loss is 0.5 from the start, 3,100 if it is 0, and longer while it falls
    (3,330 to 3,390 on the digits), so a short training never leaves the first stage. The teacher
    is updated in both stages.
    """

    staged = True
    averages: Tensor
    over: Tensor

    def __init__(self, student: Student, setting: Setting) -> None:
        super().__init__(student, setting)
        assert setting.targets is not None
        self._later, self._targets = self.views, setting.targets
        self.views, self._first = self.fitting(published.RELA), True
        self.transfer = nn.Linear(student.width, setting.dim)
        self.register_buffer("averages", torch.tensor([1.0, 2.0]))  # fast, slow
        self.register_buffer("over", torch.zeros((), dtype=torch.bool))
        self._steps = 0

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the regression's loss, or BYOL's."""
        if not self._first:
            return super().forward(views, rows, progress)
        targets = self._targets(rows)
        outputs = [self.transfer(self.student(view)) for view in views]
        losses = [in_float32(cosine, output, targets) for output in outputs]
        loss = torch.stack(losses).mean()
        self._watch(loss.detach())
        return loss

    def after_step(self, progress: float) -> None:
        """Move the teacher, and check whether the first stage is over."""
        super().after_step(progress)
        self._steps += 1
        if self._first and self._steps % LOOKED_AT == 0 and self.over:
            self.views, self._first = self._later, False

    def _watch(self, loss: Tensor) -> None:
        if dist.world_size() > 1:
            torch.distributed.all_reduce(loss, torch.distributed.ReduceOp.AVG)
        fast, slow = self.averages
        self.over |= torch.exp(-(slow - fast).clamp_min(0)) >= 0.995
        fast = fast * 0.999 + loss * 0.001
        self.averages.copy_(torch.stack([fast, slow * 0.99 + fast * 0.01]))

    def get_extra_state(self) -> dict[str, int]:
        """Return the number of steps so far, and whether training is in the first stage."""
        return {"steps": self._steps, "first": self._first}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Restore the number of steps and the stage."""
        self._steps = state["steps"]
        if not state["first"]:
            self.views, self._first = self._later, False


class SimSiam(Objective):
    """Chen and He 2021: BYOL whose teacher is the student itself, without a gradient.

    The projection has three layers, or two for small images (appendix D).
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

    There are 65,536 outputs, and the teacher sees the two global views only. Its temperature is
    0.04, as the authors have for ResNet-50; the last layer is frozen for the first 1% of the steps
    (1 epoch of 100), and the momentum rises from 0.996 to 1. For small images there are 2,048
    outputs, batch norm in the head and a momentum from 0.99, as in lightly and ReLA on CIFAR-10:
    without batch norm the outputs become equal for all samples within a few epochs, and the probe
    is then no better than that of a random backbone.
    """

    staged = True

    def __init__(self, student: Student, setting: Setting) -> None:
        super().__init__(student, published.DINO, setting)
        outputs = 2048 if self.small else 65_536
        make = partial(DINOProjectionHead, student.width, 2048, 256, outputs, self.small)
        self.head, copied = make(), make()  # deepcopy fails on weight normalisation
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
