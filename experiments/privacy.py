"""The cost of privacy: accuracy by clip and noise, and the resulting epsilon.

The consensus is of all priors, because the platform's election would refuse priors whose features
drown in noise, and stop.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl.privacy import Guard, epsilon, half, normalise
from experiments.agreement import Agreed, Array, as_told
from experiments.lab import NAMES, Lab, Made
from experiments.scales import Study
from experiments.solvers import accuracies
from experiments.table import Cell, table

OFF: Cell = {"clip": None, "noise": 0.0}
NORMALISED_ONLY: Cell = {"clip": 1e6, "noise": 0.0}
RANDOM: Cell = {"clip": None, "noise": None}
NOISES = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 4.0)
STUDENTS_NOISES = (0.0, 0.06, 0.25, 1.0, 100.0)


def guards(study: Study) -> list[Cell]:
    """Return a row for each clip and noise; without privacy, ``clip`` is None."""
    clipped = [{"clip": clip, "noise": 0.0} for clip in (1.0, 0.5, 0.1)]
    noisy = [{"clip": clip, "noise": z} for clip in (1.0, 0.1, 0.01) for z in NOISES]
    return [OFF, NORMALISED_ONLY, *clipped, *noisy]


@table(guards)
def privacy(lab: Lab, cell: Cell) -> Cell:
    """Fit a classifier on released targets, and test it on noiseless ones, as in ``solvers``."""
    guard, agreed = collaboration(lab, cell)
    targets = {name: y.astype(np.float32) for name, y in released(guard, agreed).items()}
    exact = replace(guard, noise_multiplier=0.0) if guard else None
    tests = []
    for name, spec in zip(agreed.features, lab.study.priors, strict=True):
        y = agreed.targets(name, normal(guard, lab.features(spec, "test")[0]))
        tests.append(leave(exact, y, np.arange(len(y))))
    scores = accuracies(lab, agreed, targets, tests)
    found = {f"each_c{c:g}": float(np.mean(each)) for c, each in scores.items()}
    return found | epsilons(lab, cell["noise"])


@table(lambda _: [RANDOM, OFF, *({"clip": 0.1, "noise": noise} for noise in STUDENTS_NOISES)])
def privacy_students(lab: Lab, cell: Cell) -> Cell:
    """Train a student on released targets, and probe it; RANDOM is the student before training.

    Regression onto noisy targets is unbiased. A noise of 100 drowns the targets completely, so its
    accuracy is what training on any noise gives.
    """
    seed = cell["seed"]
    if cell["noise"] is None:
        return {"student": lab.random(seed)}
    guard, agreed = collaboration(lab, cell)
    targets = np.zeros((len(lab.all), lab.study.dim), np.float32)
    for name, y in released(guard, agreed).items():
        targets[agreed.rows_of(name)] = y
    made = Made(lab.all, targets, np.full(len(targets), -1, np.int16), optimize=[])
    return {"student": lab.student(made, seed)["accuracy"]} | epsilons(lab, cell["noise"])


def collaboration(lab: Lab, cell: Cell) -> tuple[Guard | None, Agreed]:
    """Return a cell's guard, and the agreement of participants under it."""
    seed, guard = cell["seed"], None
    if cell["clip"] is not None:
        guard = Guard(cell["clip"], cell["noise"], f"{seed}".encode())
    found = zip(NAMES, lab.study.priors, strict=False)
    features = {name: normal(guard, lab.features(spec)[0]) for name, spec in found}
    at = lab.shared(lab.study.shared, seed)
    on_s = {name: leave(guard, x[at], at, "features", name) for name, x in features.items()}
    return guard, lab.agree(seed, features, elect=as_told, on_s=on_s)


def released(guard: Guard | None, agreed: Agreed) -> dict[str, NDArray[np.float16]]:
    """Return the released targets of each participant's shard, float16 (R, n)."""
    found = {}
    for name, x in agreed.features.items():
        rows = agreed.rows_of(name)
        found[name] = half(leave(guard, agreed.targets(name, x[rows]), rows, "targets", name))
    return found


def normal(guard: Guard | None, x: Array) -> Array:
    """Return features (N, m), normalised if there is a guard."""
    return normalise(torch.from_numpy(x)).numpy() if guard else x


def leave(guard: Guard | None, rows: Array, ids: np.ndarray, *what: Any) -> Array:
    """Return rows as a participant releases them."""
    return guard.release(rows, ids, *what) if guard else rows


def epsilons(lab: Lab, noise: float) -> dict[str, float | None]:
    """Return epsilon of samples that are released once, audited once, or in the shared set."""
    releases = {"ordinary": 1, "audited": 2, "shared": 1 + len(lab.study.priors)}
    found = {what: epsilon(noise, k, 1 / (10 * len(lab.all))) for what, k in releases.items()}
    return {f"epsilon_{what}": x if math.isfinite(x) else None for what, x in found.items()}
