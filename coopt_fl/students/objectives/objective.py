"""What every objective is: a loss of views of a batch, and the modules that it needs."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from coopt_fl.students.augment import Published, View
from coopt_fl.students.convnet import SMALL_IMAGE
from coopt_fl.students.models import Student


@dataclass(frozen=True)
class Task:
    """What an objective may know of a training.

    Attributes:
        samples: Rows of the dataset.
        devices: How many share a batch; contrastive losses gather their negatives.
        augment: ``student.augment``.
        loss: ``student.loss``, of a regression.
        head: ``student.head``, likewise.
        dim: Width n of the targets; 0 where there are none.
        parts: Widths of the parts of a target, each with its own head; their sum is n.
        targets: Rows (B,) to float32 targets (B, n).
    """

    samples: int
    devices: int = 1
    augment: str = "crop_flip"
    loss: str = "cosine"
    head: str = "mlp"
    dim: int = 0
    parts: tuple[int, ...] = ()
    targets: Callable[[Tensor], Tensor] | None = None


class Objective(nn.Module, ABC):
    """A student with all that its loss needs: heads, a teacher, a memory.

    What has no gradient is not optimized; all of ``state_dict()`` is kept to go on after an
    interruption.

    Attributes:
        student: What remains in the end.
        views: How each view of an image is made; may change between two steps.
        mirrored: Whether images may be mirrored. That of a digit is none, so that where a
            regression does not, no objective does.
        small: Whether the papers' settings for small images apply.
        staged: Whether some weights stand still in some steps.
    """

    staged: ClassVar[bool] = False

    def __init__(self, student: Student, published: Published, task: Task) -> None:
        super().__init__()
        self.student = student
        self.mirrored = task.augment == "crop_flip"
        self.small = student.image_size <= SMALL_IMAGE
        self.views = self.fitting(published)

    @abstractmethod
    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the loss, a scalar.

        Args:
            views: Normalised float (B, 3, v, v) for each of ``self.views``.
            rows: int64 (B,), the samples' rows of the dataset.
            progress: The part of all steps that is done, in [0, 1).
        """

    def after_step(self, progress: float) -> None:
        """Do what follows an optimizer's step, such as moving the teacher."""

    def fitting(self, published: Published) -> tuple[View, ...]:
        """Return the views for images of the student's size, all of it if it takes no other."""
        size = self.student.image_size
        views = published.at(size)
        if not self.mirrored:
            views = tuple(replace(view, flip=0.0) for view in views)
        smallest = round(min(view.size for view in views) * size)
        if smallest == size or _takes(self.student, smallest):
            return views
        return tuple(replace(view, size=1.0) for view in views)


class Teacher(nn.Module):
    """Copies of modules that follow these as a moving average, without a gradient."""

    def __init__(self, *copies: nn.Module) -> None:
        super().__init__()
        self.copies = nn.Sequential(*copies).requires_grad_(False)

    @torch.no_grad()
    def forward(self, view: Tensor) -> Tensor:
        """Return what the copies, one after another, make of a view."""
        output: Tensor = self.copies(view)
        return output

    @torch.no_grad()
    def follow(self, momentum: float, *followed: nn.Module) -> None:
        """Move every weight towards its original: ``momentum`` of the old, the rest of the new."""
        originals = [p.detach() for module in followed for p in module.parameters()]
        torch._foreach_lerp_(list(self.copies.parameters()), originals, 1 - momentum)


def in_float32(loss: Callable[..., Tensor], *values: object) -> Tensor:
    """Return ``loss(*values)`` computed in float32: exponentials overflow in half precision."""
    with torch.autocast(_device(values), enabled=False):
        result: Tensor = loss(*map(_float, values))
        return result


def _float(value: object) -> object:
    if isinstance(value, Tensor):
        return value.float()
    return [_float(one) for one in value] if isinstance(value, list) else value


def _device(value: object) -> str:
    if isinstance(value, Tensor):
        return value.device.type
    found = [_device(one) for one in value] if isinstance(value, list | tuple) else []
    return next((kind for kind in found if kind), "")


@torch.no_grad()
def _takes(student: Student, side: int) -> bool:
    """Tell whether the student can take images of another side; most transformers cannot."""
    training = student.training
    try:
        student.eval()(torch.zeros(1, 3, side, side))
    except Exception:  # what a library raises for a size it cannot take is its own
        return False
    finally:
        student.train(training)
    return True
