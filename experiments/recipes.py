"""Training recipes that no configuration offers, in short and in long trainings."""

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from coopt_fl import register
from coopt_fl.core.runtime import pick_device
from coopt_fl.core.seeding import derive_seed
from coopt_fl.priors import Prior, load_prior
from coopt_fl.registry import PARTS
from coopt_fl.students.augment.published import RELA, Published
from coopt_fl.students.augment.view import View, draw_view
from coopt_fl.students.models import Student
from coopt_fl.students.objectives.objective import AUGMENTATIONS, Regression, Setting
from experiments.agreement import Array
from experiments.lab import NAMES, Lab, Made
from experiments.precomputed import kept
from experiments.scales import Study
from experiments.table import Cell, table

STRONG = RELA.small[0]
"""Crops of at least half of the area, and colour jitter, as in ReLA's public code."""

MOMENTUM = 0.999
BATCH = 32


class Several(Regression):
    """A regression of several views of an image onto its target, with the mean of their losses.

    Attributes:
        view: Augmentation of each view; None: that of ``student.augment``.
        count: Number of views.
    """

    view: ClassVar[View | None] = None
    count: ClassVar[int] = 2

    def __init__(self, student: Student, setting: Setting) -> None:
        super().__init__(student, setting)
        views = (self.view or AUGMENTATIONS[setting.config.augment],) * self.count
        self.views = self.fitting(Published(large=views, small=views))

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the mean of the views' losses."""
        losses = [Regression.forward(self, [view], rows, progress) for view in views]
        return torch.stack(losses).mean()


class Strong(Several):
    """One strong view."""

    view, count = STRONG, 1


class TwoStrong(Several):
    """Two strong views."""

    view = STRONG


class Averaged(Regression):
    """A regression whose student is a moving average of the trained weights.

    Momentum rises to 0.999, so that even a short training forgets its initial weights.
    """

    steps: Tensor

    def __init__(self, student: Student, setting: Setting) -> None:
        super().__init__(student, setting)
        self.trained, self.student = student, deepcopy(student).requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the loss of the trained weights."""
        average, self.student = self.student, self.trained
        loss = super().forward(views, rows, progress)
        self.student = average
        return loss

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Update the average of weights and batch norm statistics."""
        self.steps += 1
        step = int(self.steps)
        rate = 1 - min(MOMENTUM, (1 + step) / (10 + step))
        for mine, other in zip(
            self.student.state_dict().values(), self.trained.state_dict().values(), strict=True
        ):
            if mine.is_floating_point():
                mine.lerp_(other, rate)


OBJECTIVES = {"two": Several, "strong": Strong, "two-strong": TwoStrong, "averaged": Averaged}


def objective(name: str) -> str:
    """Return the registered name of one of these objectives; register it if it is new."""
    registered = f"recipe-{name}"
    if not PARTS.has("objective", registered):
        register.objective(registered, on_targets=True)(OBJECTIVES[name])
    return registered


@dataclass(frozen=True)
class Variant:
    """A training recipe.

    Attributes:
        changes: Changes of the study's ``student``.
        objective: One of OBJECTIVES; None: regression.
        standardised: Whether targets are standardised in each dimension.
        views: Number of views of each image over which a prior's features are averaged.
    """

    changes: Cell
    objective: str | None = None
    standardised: bool = False
    views: int = 1


RECIPES = {
    "ours": Variant({}),
    "two views": Variant({}, "two"),
    "targets standardised": Variant({}, standardised=True),
    "augment: strong": Variant({}, "strong"),
    "ReLA's: two strong views, standardised, linear": Variant(
        {"head": "linear"}, "two-strong", standardised=True
    ),
    "average of the weights": Variant({}, "averaged"),
    "targets of 2 views": Variant({}, views=2),
    "augment: none": Variant({"augment": "none"}),
    "augment: crop": Variant({"augment": "crop"}),
    "augment: crop_flip": Variant({"augment": "crop_flip"}),
    "targets of 4 views": Variant({}, views=4),
}
"""Recipes, most informative first. The one with our own augmentation is not measured again."""


def _rows(study: Study) -> list[Cell]:
    same = f"augment: {study.student.augment}"
    return [
        {"epochs": epochs, "recipe": name}
        for epochs in study.lengths
        for name in RECIPES
        if name != same
    ]


@table(_rows)
def recipe_long(lab: Lab, cell: Cell) -> Cell:
    """Which parts of a recipe matter in short trainings, and in long ones?

    Ours has one view with the study's augmentation. A prior's first view is the image itself, its
    further views are augmented like a student's. The seconds include the cost of each recipe.
    """
    recipe, seed = RECIPES[cell["recipe"]], cell["seed"]
    made = of_views(lab, recipe.views, seed)
    if recipe.standardised:
        made = standardised(made)
    changes = recipe.changes | {"epochs": cell["epochs"]}
    if recipe.objective:
        changes["objective"] = objective(recipe.objective)
    return lab.student(made, seed, **changes)


def standardised(made: Made) -> Made:
    """Return targets with mean 0 and standard deviation 1 in each dimension."""
    centred = made.targets - made.targets.mean(axis=0)
    return replace(made, targets=centred / np.maximum(centred.std(axis=0), 1e-6))


def of_views(lab: Lab, views: int, seed: int) -> Made:
    """Return targets of a collaboration with priors' features averaged over views of each image."""
    if views == 1:
        return lab.collaborate(seed)
    specs = lab.study.priors
    found = [[lab.features(spec), *more(lab, spec, views)] for spec in specs]
    features = {
        name: np.mean([x for x, _ in each], axis=0)
        for name, each in zip(NAMES[: len(specs)], found, strict=True)
    }
    made = lab.collaborate(seed, features=features)
    first = [each[0][1] for each in found]
    whole = [sum(seconds for _, seconds in each) for each in found]
    return replace(
        made,
        optimize=[s * b / a for s, a, b in zip(made.optimize, first, whole, strict=True)],
        represent=made.represent * sum(whole) / sum(first),
    )


def more(lab: Lab, spec: str, views: int) -> list[tuple[Array, float]]:
    """Return a prior's features (N, m) of further views of all images, and their seconds."""
    precision, how = lab.study.precision, lab.study.student.augment
    prior = load_prior(spec, pick_device(), precision)
    return [
        kept(
            f"{prior.sha256} {lab.source.fingerprint} {how} {number}",
            spec,
            precision,
            partial(_look, lab, prior, AUGMENTATIONS[how], derive_seed(0, "view", number)),
        )
        for number in range(1, views)
    ]


def _look(lab: Lab, prior: Prior, view: View, seed: int) -> Array:
    """Return a prior's features (N, m) of one view of each image."""
    found = list[Array]()
    for ids in np.split(lab.all, range(BATCH, len(lab.all), BATCH)):
        images = torch.stack(lab.source.read(ids)).to(prior.device)
        draws = draw_view(torch.from_numpy(ids).to(prior.device), seed)
        seen = view(images / 255, draws).mul(255).round().to(torch.uint8)
        found.append(prior.features(seen, lab.study.precision).float().cpu().numpy())
    return np.concatenate(found)
