"""Objectives that contrast samples, or clusters of them: SimCLR, DCL, MoCo v2, InstDisc, SwAV.

Settings are those of the papers for ImageNet. For images up to 64 pixels they are those of the
authors for CIFAR-10, or else of common reproductions.
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
    """Chen et al. 2020: find the other view of the same sample among all views in the batch.

    Attributes:
        criterion_of: The class of lightly's loss.
        temperatures: Temperature of the loss for small and for large images.
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

    The queue is as long as a sixteenth of the samples, at most 65,536: about the paper's share of
    ImageNet and the authors' 4,096 on CIFAR-10. Momentum 0.999, or 0.99 for small images, as the
    authors have.
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
        del memory.bank_ptr  # not a buffer, which would move to the GPU; lightly reads it each step
        memory.bank_ptr = place

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the contrastive loss against the teacher's output for the other view.

        It is symmetric, as in the authors' CIFAR-10 code; on ImageNet they have one direction.
        Both directions see the same queue: if the first's keys were already in it, a sample would
        be its own negative in the second.
        """
        queries = [self.head(self.student(view)) for view in views]
        keys = [self._key(view) for view in reversed(views)]
        return in_float32(self.criterion, torch.cat(queries), torch.cat(keys))

    def _key(self, view: Tensor) -> Tensor:
        """Return the teacher's outputs (B, 128), computed in batches shuffled over the devices.

        Otherwise a query and its key would share batch norm statistics, which reveal the pair.
        """
        if self.devices == 1:
            return cast(Tensor, self.teacher(view))
        shuffled, order = batch_shuffle(view, distributed=True)
        return cast(Tensor, batch_unshuffle(self.teacher(shuffled), order, distributed=True))

    def after_step(self, progress: float) -> None:
        """Move the teacher."""
        self.teacher.follow(self.momentum, self.student, self.head)

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the queue, which is not in lightly's state dict."""
        memory = self.criterion.memory_bank
        return {"bank": memory.bank.cpu(), "place": memory.bank_ptr}

    def set_extra_state(self, state: Any) -> None:
        """Restore the queue."""
        memory = self.criterion.memory_bank
        memory.bank, memory.bank_ptr = state["bank"].to(memory.bank.device), state["place"].cpu()


class InstanceDiscrimination(Objective):
    """Wu et al. 2018: every sample is a class of its own, with its weights in a memory bank.

    Outputs are 128 wide, the temperature is 0.07, or 0.1 for small images, and an entry of the
    bank moves halfway to each new output. The softmax over all samples is exact, as in the
    authors' CIFAR-10 code; on ImageNet they approximate it by noise-contrastive estimation to save
    memory, of which today's GPUs have enough.
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

    There are 3,000 prototypes, or a tenth of the samples if that is less, because a batch is
    assigned to them in equal parts; they are frozen for the first 1% of the steps. As a batch is
    smaller than that, a queue of the last 3,840 outputs (an eighth of the samples if that is less)
    of both global views is assigned together with it from 7.5% of the steps on: the authors'
    recipe for batches of 256 (15 epochs of 200). By then the queue is full in any training of two
    epochs or more.
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
        own = self.queue[dist.rank() :: self.devices]  # each device adds its share of the queue
        queued = own.unbind(1) if progress >= UNQUEUED else None

        def loss(outputs: list[Tensor]) -> Tensor:
            scores = [self.prototypes(output) for output in outputs]
            earlier = [self.prototypes(output) for output in queued] if queued else None
            found: Tensor = self.criterion(scores[:2], scores[2:], earlier)
            return found.squeeze()

        return in_float32(loss, outputs)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Normalise the prototypes, and push the outputs onto the queue."""
        self.prototypes.normalize()
        seen = concat_all_gather(self._seen) if self.devices > 1 else self._seen
        self.queue.copy_(torch.cat([seen, self.queue])[: len(self.queue)])
