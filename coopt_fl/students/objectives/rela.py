"""ReLA: targets first, then BYOL (Sun, Jiang, Lin, NeurIPS 2024)."""

import torch
from lightly.utils import dist
from torch import Tensor, nn

from coopt_fl.students.augment.published import RELA
from coopt_fl.students.models import Student
from coopt_fl.students.objectives.objective import Setting, cosine, in_float32
from coopt_fl.students.objectives.teachers import BYOL

LOOKED_AT = 32
"""Steps between two checks whether the first stage is over: each waits for the device."""


class ReLA(BYOL):
    """Regression of both views onto the target until it no longer gets better, then BYOL.

    As in the authors' code: ``fast`` follows the loss (0.999), ``slow`` follows ``fast`` (0.99),
    from 1 and 2; the first stage is over when exp(-(slow - fast)) reaches 0.995. That takes 2,400
    steps if the loss is 0.5 from the start, 3,100 if it is 0, and longer while it falls (3,330 to
    3,390 on the digits), so a short training never leaves it. The teacher follows all the time.
    """

    staged = True
    averages: Tensor
    over: Tensor

    def __init__(self, student: Student, setting: Setting) -> None:
        super().__init__(student, setting)
        assert setting.targets is not None
        self._later, self._targets = self.views, setting.targets
        self.views, self._first = self.fitting(RELA), True
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
            self._go_on()

    def _go_on(self) -> None:
        self.views, self._first = self._later, False

    def _watch(self, loss: Tensor) -> None:
        if dist.world_size() > 1:
            torch.distributed.all_reduce(loss, torch.distributed.ReduceOp.AVG)
        fast, slow = self.averages
        self.over |= torch.exp(-(slow - fast).clamp_min(0)) >= 0.995
        fast = fast * 0.999 + loss * 0.001
        self.averages.copy_(torch.stack([fast, slow * 0.99 + fast * 0.01]))

    def get_extra_state(self) -> dict[str, int]:
        """Return the steps so far, and whether the first stage still goes on."""
        return {"steps": self._steps, "first": self._first}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Continue after so many steps."""
        self._steps = state["steps"]
        if not state["first"]:
            self._go_on()
