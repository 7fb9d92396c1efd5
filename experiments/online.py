"""Usual distillation: teachers compute features of every view in every step; none are stored.

With one teacher this is what lightly-train does; with several, AM-RADIO (Ranzinger et al. 2024) and
Theia (Shang et al. 2024): one head per teacher, whose features are standardised.
"""

import hashlib
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from coopt_fl import register
from coopt_fl.core.runtime import pick_device
from coopt_fl.priors import load_prior
from coopt_fl.registry import PARTS
from coopt_fl.students.augment.published import Published
from coopt_fl.students.models import Student
from coopt_fl.students.objectives.objective import (
    AUGMENTATIONS,
    Objective,
    Setting,
    cosine,
    in_float32,
    mlp,
)


class Online(Objective):
    """The mean over the teachers of 1 - cosine between a head's output and its teacher's features.

    View, head and loss are those of our regression. A teacher sees the student's view, resized to
    its input size, and its features are standardised over the batch.

    Attributes:
        specs: Specifications of the teachers.
        precision: Precision of the teachers.
    """

    specs: ClassVar[tuple[str, ...]]
    precision: ClassVar[str]

    def __init__(self, student: Student, setting: Setting) -> None:
        view = AUGMENTATIONS[setting.config.augment]
        super().__init__(student, Published(large=(view,), small=(view,)), setting)
        assert setting.normalised is not None
        device = pick_device()
        moments = (setting.normalised.mean, setting.normalised.std)
        self._mean, self._std = (torch.tensor(m, device=device).view(3, 1, 1) for m in moments)
        # in a tuple, so that they are not in the state dict of a checkpoint
        self._teachers = tuple(load_prior(spec, device, self.precision) for spec in self.specs)
        widths = [teacher.width for teacher in self._teachers]
        self.heads = nn.ModuleList(mlp(student.width, width) for width in widths)
        self.scales = nn.ModuleList(nn.BatchNorm1d(width, affine=False) for width in widths)

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the loss of the one view."""
        seen = (views[0] * self._std + self._mean).mul(255).round().clamp(0, 255).to(torch.uint8)
        features = self.student(views[0])
        losses = [
            in_float32(cosine, head(features), scale(teacher.features(seen, self.precision)))
            for teacher, head, scale in zip(self._teachers, self.heads, self.scales, strict=True)
        ]
        return torch.stack(losses).mean()


def online(specs: Sequence[str], precision: str) -> str:
    """Return the name of the objective with these teachers; register it if it is new."""
    name = f"online-{hashlib.sha256(repr((specs, precision)).encode()).hexdigest()[:12]}"
    if not PARTS.has("objective", name):
        made = type("Online", (Online,), {"specs": tuple(specs), "precision": precision})
        register.objective(name, on_targets=False)(made)
    return name
