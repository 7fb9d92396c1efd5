"""SwAV: swapped assignments to prototypes."""

import torch
from lightly.loss import SwaVLoss
from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes
from torch import Tensor
from torch.nn import functional as F

from coopt_fl.students.augment import SWAV
from coopt_fl.students.models import Student
from coopt_fl.students.objectives.objective import Objective, Task, in_float32


class SwAV(Objective):
    """Caron et al. 2020: predict the cluster of one view from every other one.

    3,000 prototypes (a tenth of the samples if that is less: a batch is shared out equally among
    them), which stand still for the first 1% of the steps. No queue: it is the paper's remedy for
    batches of less than 256, starts after 15 epochs, and is left out of its standard form.
    """

    def __init__(self, student: Student, task: Task) -> None:
        super().__init__(student, SWAV)
        self.head = SwaVProjectionHead(student.width, 2048, 128)
        self.prototypes = SwaVPrototypes(128, max(16, min(3000, task.samples // 10)))
        self.prototypes.normalize()
        self.criterion = SwaVLoss(sinkhorn_gather_distributed=task.devices > 1)

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the cross-entropy to the assignments of the two global views."""
        self.prototypes.requires_grad_(progress >= 0.01)
        outputs = [self.head(self.student(view)) for view in views]
        return in_float32(self._loss, outputs)

    def _loss(self, outputs: list[Tensor]) -> Tensor:
        scores = [self.prototypes(F.normalize(output)) for output in outputs]
        loss: Tensor = self.criterion(scores[:2], scores[2:])
        return loss.squeeze()

    def after_step(self, progress: float) -> None:
        """Keep the prototypes on the unit sphere."""
        with torch.no_grad():
            self.prototypes.normalize()
