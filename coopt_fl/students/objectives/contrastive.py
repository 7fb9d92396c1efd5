"""Objectives that contrast samples, or clusters of them: SimCLR, DCL, MoCo v2, InstDisc, SwAV.

Settings are those of the papers on ImageNet, and for images up to 64 pixels those that the
authors, or else common reproductions, use on CIFAR-10.
"""

from copy import deepcopy
from typing import Any, ClassVar, cast

import torch
from lightly.loss import DCLLoss, NTXentLoss, SwaVLoss
from lightly.models.modules import (
    MoCoProjectionHead,
    SimCLRProjectionHead,
    SwaVProjectionHead,
    SwaVPrototypes,
)
from lightly.models.utils import batch_shuffle, batch_unshuffle, concat_all_gather
from lightly.utils import dist
from torch import Tensor, nn
from torch.nn import functional as F

from coopt_fl.students.augment.published import INSTDISC, MOCO, SIMCLR, SWAV
from coopt_fl.students.models import Student
from coopt_fl.students.objectives.objective import Objective, Setting, Teacher, in_float32

MOST_NEGATIVES = 65_536

FROZEN, UNQUEUED = 0.01, 0.075
"""Shares of SwAV's steps, from the first on, with frozen prototypes and without the queue."""


class SimCLR(Objective):
    """Chen et al. 2020: of all views in a batch, find the other one of the same sample.

    Attributes:
        criterion_of: lightly's loss.
        temperatures: Its temperature for small images and for large ones.
    """

    criterion_of: ClassVar[type[nn.Module]] = NTXentLoss
    temperatures: ClassVar[tuple[float, float]] = 0.5, 0.1

    def __init__(self, student: Student, setting: Setting) -> None:
        super().__init__(student, SIMCLR, setting)
        self.head = SimCLRProjectionHead(student.width, student.width, 128)
        temperature = self.temperatures[0 if self.small else 1]
        self.criterion = self.criterion_of(temperature, gather_distributed=self.devices > 1)

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the contrastive loss of two views."""
        return in_float32(self.criterion, *(self.head(self.student(view)) for view in views))


class DCL(SimCLR):
    """Yeh et al. 2022: SimCLR without the positive pair in the denominator."""

    criterion_of = DCLLoss
    temperatures = 0.07, 0.1


class MoCo(Objective):
    """He et al. 2020, Chen et al. 2020 (v2): a queue of a momentum teacher's outputs as negatives.

    The queue is a sixteenth of the samples, at most 65,536: about the paper's share of ImageNet
    and the authors' 4,096 on CIFAR-10. Momentum 0.999, or 0.99 for small images, as they have it.
    """

    def __init__(self, student: Student, setting: Setting) -> None:
        super().__init__(student, MOCO, setting)
        self.head = MoCoProjectionHead(student.width, student.width, 128)
        self.teacher = Teacher(deepcopy(student), deepcopy(self.head))
        size = min(MOST_NEGATIVES, max(64, setting.samples // 16))
        temperature = 0.1 if self.small else 0.2
        self.criterion = NTXentLoss(temperature, (size, 128), gather_distributed=self.devices > 1)
        self.momentum = 0.99 if self.small else 0.999
        memory = self.criterion.memory_bank
        place = memory.bank_ptr
        del memory.bank_ptr  # a buffer goes to the GPU, and lightly reads this one in every step
        memory.bank_ptr = place

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the loss of finding the teacher's output of the other view, in both directions.

        (The symmetric form of the authors' CIFAR-10 code; on ImageNet they have one direction.)
        Both see the same queue: with the first keys in it, a sample would be its own negative.
        """
        queries = [self.head(self.student(view)) for view in views]
        keys = [self._key(view) for view in reversed(views)]
        return in_float32(self.criterion, torch.cat(queries), torch.cat(keys))

    def _key(self, view: Tensor) -> Tensor:
        """Return the teacher's outputs (B, 128), computed in batches shuffled over the devices.

        A query and its key would otherwise share a batch's statistics, which would betray the pair.
        """
        if self.devices == 1:
            return cast(Tensor, self.teacher(view))
        shuffled, order = batch_shuffle(view, distributed=True)
        return cast(Tensor, batch_unshuffle(self.teacher(shuffled), order, distributed=True))

    def after_step(self, progress: float) -> None:
        """Move the teacher."""
        self.teacher.follow(self.momentum, self.student, self.head)

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the queue, which lightly does not count as state."""
        memory = self.criterion.memory_bank
        return {"bank": memory.bank.cpu(), "place": memory.bank_ptr}

    def set_extra_state(self, state: Any) -> None:
        """Put the queue back."""
        memory = self.criterion.memory_bank
        memory.bank, memory.bank_ptr = state["bank"].to(memory.bank.device), state["place"].cpu()


class InstanceDiscrimination(Objective):
    """Wu et al. 2018: every sample is a class of its own, whose weights are a memory bank.

    128 wide, temperature 0.07, or 0.1 for small images, and a bank that moves halfway to each new
    output. The softmax over all samples is exact, as in the authors' CIFAR-10 code; on ImageNet
    they estimate it by noise contrast, to save what a GPU now has.
    """

    bank: Tensor

    def __init__(self, student: Student, setting: Setting) -> None:
        super().__init__(student, INSTDISC, setting)
        self.head = nn.Linear(student.width, 128)
        self.register_buffer("bank", F.normalize(torch.randn(setting.samples, 128)))
        self.temperature = 0.1 if self.small else 0.07

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the cross-entropy over all samples."""
        output = F.normalize(self.head(self.student(views[0])).float())
        self._seen = output.detach(), rows
        return in_float32(
            lambda own: F.cross_entropy(own @ self.bank.T / self.temperature, rows), output
        )

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the bank towards the outputs."""
        output, rows = self._seen
        if self.devices > 1:
            output, rows = concat_all_gather(output), concat_all_gather(rows)
        self.bank[rows] = F.normalize(0.5 * self.bank[rows] + 0.5 * output)


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
        self.criterion = SwaVLoss(sinkhorn_gather_distributed=self.devices > 1)

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the cross-entropy to the assignments of the two global views."""
        self.prototypes.requires_grad_(progress >= FROZEN)
        outputs = [F.normalize(self.head(self.student(view)).float()) for view in views]
        self._seen = torch.stack(outputs[:2], dim=1).detach()
        own = self.queue[dist.rank() :: self.devices]  # each device adds its share to the batch
        queued = own.unbind(1) if progress >= UNQUEUED else None

        def loss(outputs: list[Tensor]) -> Tensor:
            scores = [self.prototypes(output) for output in outputs]
            earlier = [self.prototypes(output) for output in queued] if queued else None
            found: Tensor = self.criterion(scores[:2], scores[2:], earlier)
            return found.squeeze()

        return in_float32(loss, outputs)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Normalise the prototypes, and put the outputs into the queue."""
        self.prototypes.normalize()
        seen = concat_all_gather(self._seen) if self.devices > 1 else self._seen
        self.queue.copy_(torch.cat([seen, self.queue])[: len(self.queue)])
