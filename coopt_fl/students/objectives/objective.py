"""The base class of the objectives, and CoOpt's own: regression onto targets."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coopt_fl.config.schema import StudentConfig
from coopt_fl.data import Preprocess
from coopt_fl.students.augment.published import Published
from coopt_fl.students.augment.view import View
from coopt_fl.students.models import SMALL_IMAGE, Student


@dataclass(frozen=True)
class Setting:
    """The properties of a training on which an objective depends.

    Attributes:
        samples: Number of rows of the dataset.
        devices: Number of devices that share a batch; contrastive losses gather negatives from all.
        config: The student's configuration, for ``augment``, and for a regression's ``loss`` and
            ``head``.
        dim: Width D of the targets; 0 without targets.
        parts: Widths of the parts of a target, each of which gets its own head; their sum is D.
        targets: A function from rows (B,) to float32 targets (B, D).
        normalised: The preprocessing that normalises the views.
    """

    samples: int
    devices: int = 1
    config: StudentConfig = field(default_factory=StudentConfig)
    dim: int = 0
    parts: tuple[int, ...] = ()
    targets: Callable[[Tensor], Tensor] | None = None
    normalised: Preprocess | None = None


class Objective(nn.Module, ABC):
    """A student together with all that its loss needs, such as heads, a teacher, a memory bank.

    Parameters without gradients are not optimized; checkpoints keep the whole ``state_dict()``.

    Attributes:
        student: The model that is kept after the training.
        views: The augmentation of each view; may change between two steps.
        mirrored: Whether views may be mirrored. This holds for all objectives or for none, because
            the mirror image of a digit is not a digit.
        devices: Number of devices that share a batch.
        small: Whether the papers' settings for small images apply.
        staged: Whether some weights are frozen in some steps.
    """

    staged: ClassVar[bool] = False

    def __init__(self, student: Student, published: Published, setting: Setting) -> None:
        super().__init__()
        self.student, self.devices = student, setting.devices
        self.mirrored = setting.config.augment == "crop_flip"
        self.small = student.image_size <= SMALL_IMAGE
        self.views = self.fitting(published)

    @abstractmethod
    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the loss, a scalar.

        Args:
            views: Normalised float (B, 3, v, v) for each of ``self.views``.
            rows: int64 (B,), the samples' rows in the dataset.
            progress: Fraction of all steps done so far, in [0, 1).
        """

    def after_step(self, progress: float) -> None:
        """Update what the optimizer does not, such as a teacher; called after each step."""

    def fitting(self, published: Published) -> tuple[View, ...]:
        """Return the published views, adapted to the student.

        They are not mirrored unless allowed, and have the student's image size if the model
        cannot take smaller images.
        """
        size = self.student.image_size
        views = published.at(size)
        if not self.mirrored:
            views = tuple(replace(view, flip=0.0) for view in views)
        smallest = round(min(view.size for view in views) * size)
        if smallest == size or _takes(self.student, smallest):
            return views
        return tuple(replace(view, size=1.0) for view in views)


class Teacher(nn.Module):
    """Copies of modules without gradients, whose weights are moving averages of the originals'."""

    def __init__(self, *copies: nn.Module) -> None:
        super().__init__()
        self.copies = nn.Sequential(*copies).requires_grad_(False)

    @torch.no_grad()
    def forward(self, view: Tensor) -> Tensor:
        """Return the output of the copies, applied one after another to a view."""
        return cast(Tensor, self.copies(view))

    @torch.no_grad()
    def follow(self, momentum: float, *followed: nn.Module) -> None:
        """Set each weight to ``momentum * weight + (1 - momentum) * original``."""
        originals = [p.detach() for module in followed for p in module.parameters()]
        torch._foreach_lerp_(list(self.copies.parameters()), originals, 1 - momentum)


def in_float32(loss: Callable[..., Tensor], *values: Tensor | list[Tensor]) -> Tensor:
    """Return ``loss(*values)`` computed in float32: exponentials overflow in half precision."""
    exact = [
        [one.float() for one in value] if isinstance(value, list) else value.float()
        for value in values
    ]
    with torch.autocast(exact[0][0].device.type, enabled=False):
        return loss(*exact)


@torch.no_grad()
def _takes(student: Student, side: int) -> bool:
    """Return whether the student can take images of ``side`` pixels; most transformers cannot."""
    training = student.training
    try:
        student.eval()(torch.zeros(1, 3, side, side))
    except Exception:  # libraries raise various errors for a size they do not support
        return False
    finally:
        student.train(training)
    return True


AUGMENTATIONS = {
    "none": View(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grey=0.0),
    "crop": View(scale=(0.64, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grey=0.0),
    "crop_flip": View(scale=(0.64, 1.0), ratio=(1.0, 1.0), flip=0.5, jitter=0.0, grey=0.0),
}
"""The view of a regression, by ``student.augment``. Crops keep at least 0.8 of the side, because
targets are those of the whole image: a crop that misses the subject should not be trained on one.
"""


def cosine(output: Tensor, target: Tensor) -> Tensor:
    """Return 1 - cos(output, target), both (B, D), averaged over the batch: a scalar in [0, 2].

    The lengths of the targets do not matter, so a few long ones cannot dominate.
    """
    return 1 - F.cosine_similarity(output, target, dim=1).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine, "mse": F.mse_loss}
"""The losses by ``student.loss``."""

HIDDEN = 2048
"""Width of the hidden layer of the ``mlp`` head, as in SimSiam's projection."""


def mlp(width: int, dim: int) -> nn.Module:
    """Return a head with one hidden layer, from features (B, width) to outputs (B, dim).

    The head absorbs target-specific detail, which the features then need not hold.
    """
    first, last = nn.Linear(width, HIDDEN, bias=False), nn.Linear(HIDDEN, dim)
    return nn.Sequential(first, nn.BatchNorm1d(HIDDEN), nn.ReLU(inplace=True), last)


HEADS: dict[str, Callable[[int, int], nn.Module]] = {"mlp": mlp, "linear": nn.Linear}
"""The heads by ``student.head``: from features (B, width) to outputs (B, dim)."""


class Regression(Objective):
    """One view, one head, one loss (CoOpt, arXiv 2505.14117; the paper's head is linear).

    If a target has parts, each part has its own head, and the loss is the mean over the parts.
    """

    def __init__(self, student: Student, setting: Setting) -> None:
        view = AUGMENTATIONS[setting.config.augment]
        super().__init__(student, Published(large=(view,), small=(view,)), setting)
        assert setting.targets is not None
        self._parts = list(setting.parts or (setting.dim,))
        self.heads = nn.ModuleList(
            HEADS[setting.config.head](student.width, n) for n in self._parts
        )
        self._loss, self._targets = LOSSES[setting.config.loss], setting.targets

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the loss between the heads' outputs and the targets of ``rows``."""
        features = self.student(views[0])
        targets = self._targets(rows).split(self._parts, dim=1)
        losses = [
            in_float32(self._loss, head(features), target)
            for head, target in zip(self.heads, targets, strict=True)
        ]
        return torch.stack(losses).mean()
