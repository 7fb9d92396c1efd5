"""SwAV: swapped assignments to prototypes."""

from functools import partial

import torch
from lightly.loss import SwaVLoss
from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes
from lightly.models.utils import concat_all_gather
from lightly.utils import dist
from torch import Tensor
from torch.nn import functional as F

from coopt_fl.students.augment.published import SWAV
from coopt_fl.students.models import Student
from coopt_fl.students.objectives.objective import Objective, Setting, in_float32

FROZEN, UNQUEUED = 0.01, 0.075
"""Shares of the steps, from the first on, with frozen prototypes and without the queue."""


class SwAV(Objective):
    """Caron et al. 2020: predict the cluster of one view from every other one.

    3,000 prototypes (a tenth of the samples if that is less: a batch is shared out equally among
    them), which are frozen for the first 1% of the steps. As a batch is smaller than that, the
    last 3,840 outputs (an eighth of the samples if that is less) of either global view are shared
    out with it, from 7.5% of the steps on: the authors' recipe for batches of 256 (15 epochs of
    200). The queue is full by then in a training of two epochs or more.
    """

    staged = True
    queue: Tensor

    def __init__(self, student: Student, setting: Setting) -> None:
        super().__init__(student, SWAV, setting)
        self.head = SwaVProjectionHead(student.width, 2048, 128)
        self.prototypes = SwaVPrototypes(128, max(16, min(3000, setting.samples // 10)))
        self.prototypes.normalize()
        held = min(3840, setting.samples // 8)
        self.register_buffer("queue", F.normalize(torch.randn(held, 2, 128), dim=2))
        self.devices = setting.devices
        self.criterion = SwaVLoss(sinkhorn_gather_distributed=setting.devices > 1)

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the cross-entropy to the assignments of the two global views."""
        self.prototypes.requires_grad_(progress >= FROZEN)
        outputs = [F.normalize(self.head(self.student(view)).float()) for view in views]
        self._seen = torch.stack(outputs[:2], dim=1).detach()
        return in_float32(partial(self._loss, progress >= UNQUEUED), outputs)

    def _loss(self, queued: bool, outputs: list[Tensor]) -> Tensor:
        scores = [self.prototypes(output) for output in outputs]
        own = self.queue[dist.rank() :: self.devices]  # each device adds its share to the batch
        earlier = [self.prototypes(output) for output in own.unbind(1)] if queued else None
        loss: Tensor = self.criterion(scores[:2], scores[2:], earlier)
        return loss.squeeze()

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Normalise the prototypes, and put the outputs into the queue."""
        self.prototypes.normalize()
        seen = concat_all_gather(self._seen) if self.devices > 1 else self._seen
        self.queue.copy_(torch.cat([seen, self.queue])[: len(self.queue)])
