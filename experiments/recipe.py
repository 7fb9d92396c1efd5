"""What of a recipe matters: ours, the paper's, and ours with one thing changed.

What each costs is in its seconds. In the last rows one of the participants has a prior that has
seen no image.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.linalg import hadamard

from coopt_fl.targets.linear import principal_axes
from experiments.agreement import Array
from experiments.lab import Lab, Made
from experiments.table import Cell, table

PAPER = {"reference": "best", "solver": "sgd", "projection": "random"}
"""Section 3.3 of the paper: a random W, and T by gradient descent, to the most uniform prior."""

TARGETS: dict[str, Cell] = {
    "the paper's": PAPER,
    "the paper's, our student": PAPER,
    "reference: best": {"reference": "best"},
    "projection: random": {"reference": "best", "projection": "random"},
    "solver: procrustes": {"solver": "procrustes"},
    "solver: sgd": {"solver": "sgd"},
    "replicas: 3": {"replicas": 3},
    "weak third": {},
    "weak third, shards by R2": {"by_r2": True},
}
"""How targets are made, where it is not as in ours."""

STUDENT: dict[str, Cell] = {
    "the paper's": {"loss": "mse", "head": "linear"},
    "loss: mse": {"loss": "mse"},
    "head: linear": {"head": "linear"},
    "whiten: true": {"whiten": True},
    "augment: none": {"augment": "none"},
}
"""How a student is trained, likewise."""


def balanced(made: Made) -> Made:
    """Return targets with the same mean and scale for every participant."""
    targets = made.targets.copy()
    for owner in np.unique(made.participants):
        mine = made.participants == owner
        targets[mine] = scaled(targets[mine])
    return replace(made, targets=targets)


def phi_s(made: Made) -> Made:
    """Return targets by PHI-S (Ranzinger et al. 2024): the same variance in every entry.

    Their principal components are rotated by a Hadamard matrix, and all have one scale.
    """
    targets = scaled(made.targets)
    n = targets.shape[1]
    rotated = targets @ principal_axes(targets.astype(np.float64), n) @ hadamard(n) / n**0.5
    return replace(made, targets=rotated.astype(np.float32))


def scaled(targets: Array) -> Array:
    """Return targets centred, with a mean square of 1."""
    centred = targets - targets.mean(axis=0)
    unit: Array = centred / np.sqrt(np.square(centred).mean())
    return unit


NORMALISED: dict[str, Callable[[Made], Made]] = {
    "each participant normalised": balanced,
    "PHI-S": phi_s,
}
"""What is done to targets after they are made."""


@table(lambda _: [{"recipe": r} for r in dict.fromkeys(("ours", *STUDENT, *NORMALISED, *TARGETS))])
def recipe(lab: Lab, cell: Cell) -> Cell:
    """Train by the recipe."""
    name, seed = cell["recipe"], cell["seed"]
    priors = (*lab.study.priors[:-1], lab.study.weak[-1]) if "weak third" in name else None
    made = lab.collaborate(seed, priors=priors, **TARGETS.get(name, {}))
    made = NORMALISED.get(name, lambda same: same)(made)
    return lab.student(made, seed, **STUDENT.get(name, {}))
