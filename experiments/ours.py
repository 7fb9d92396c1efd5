"""Tables that are not in the paper: fairness of its tables, the platform's decisions, priors."""

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import hadamard

from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ParticipantError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.policies.reference import elect
from coopt_fl.registry import PARTS
from coopt_fl.students.checkpoint import CHECKPOINT
from coopt_fl.students.classifier import fit_probe
from coopt_fl.students.train import train_student
from coopt_fl.targets import uniformity
from coopt_fl.targets.linear import principal_axes
from experiments.agreement import Array
from experiments.figures import curves, points
from experiments.lab import SPLITS, Lab, Made
from experiments.paper import train
from experiments.scales import Study
from experiments.table import Cell, table

FACTORS = (1 / 3, 1, 3)


def rates(study: Study) -> list[Cell]:
    """Return a row for each objective and factor of the study's learning rate."""
    tried = [round(factor * study.student.lr, 6) for factor in FACTORS]
    return [
        {"objective": name, "lr": rate} for name in PARTS.shipped("objective") for rate in tried
    ]


@table(rates)
def learning_rates(lab: Lab, cell: Cell) -> Cell:
    """Is the learning rate that all objectives of ``table1_baselines`` share fair to each?"""
    return train(lab, cell, every=lab.study.student.epochs, lr=cell["lr"])


LONGER = 8
PLAIN = "regression, no augmentation"
LASTING = ("random", "regression", PLAIN, "moco", "dcl", "byol")


@table(lambda study: [{"objective": name} for name in LASTING], curves)
def long_training(lab: Lab, cell: Cell) -> Cell:
    """Does the lead last? Self-supervised learning gains from long training.

    CoOpt and the strongest baselines are trained for eight times the epochs of the other tables,
    and probed at every multiple of the shorter training.
    """
    epochs, changes = lab.study.student.epochs, {}
    if cell["objective"] == PLAIN:
        cell, changes = cell | {"objective": "regression"}, {"augment": "none"}
    return train(lab, cell, every=epochs, epochs=LONGER * epochs, **changes)


ORIGINS = ("other images", "nothing", "these images")


@table(lambda study: [{"trained on": origin} for origin in ORIGINS])
def prior_data(lab: Lab, cell: Cell) -> Cell:
    """How does it matter what the priors were trained on?

    There are three participants with priors trained on another dataset, three with untrained
    priors, or one prior trained by SimCLR, without labels, on the study's own images (its training
    time is not counted).
    """
    seed = cell["seed"]
    if cell["trained on"] == "these images":
        return lab.student(of_own(lab, seed), seed)
    priors = lab.study.priors if cell["trained on"] == "other images" else lab.study.weak
    return lab.student(lab.collaborate(seed, priors=priors), seed)


def of_own(lab: Lab, seed: int) -> Made:
    """Return the targets of a prior that is trained by SimCLR on the study's images."""
    student = replace(lab.study.student, objective="simclr")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        own_weights = Config(derive_seed(seed, "prior"), lab.study.data, student=student)
        train_student(None, own_weights, out, devices=1)
        return lab.centralize(f"checkpoint:{out / CHECKPOINT}", seed)


@table(lambda study: [{"side": side} for side in study.sides])
def prior_size(lab: Lab, cell: Cell) -> Cell:
    """Which input size of the priors is worth its cost? The same priors with larger images."""
    side = cell["side"]
    priors = [
        f"{spec.partition('?')[0]}?size={side}" if "size=" in spec else spec
        for spec in lab.study.priors
    ]
    return lab.student(lab.collaborate(cell["seed"], priors=priors), cell["seed"])


@table(lambda study: [{"replicas": r} for r in range(1, len(study.priors) + 1)])
def redundancy(lab: Lab, cell: Cell) -> Cell:
    """Each sample is optimized by r participants, whose aligned targets are averaged.

    This costs r times the inference. For equal cost, compare it with a student trained longer.
    """
    return lab.student(lab.collaborate(cell["seed"], replicas=cell["replicas"]), cell["seed"])


@table(lambda s: [{"prior": p} for p in dict.fromkeys((*s.priors, *s.weak, *s.ladder))], points)
def uniformity_as_judge(lab: Lab, cell: Cell) -> Cell:
    """Does uniformity rank the study's priors as their linear probes do?

    Uniformity is computed on the features of a shared set, the probe on all features.
    """
    x, z = (lab.features(cell["prior"], split)[0] for split in SPLITS)
    score = uniformity(x[lab.shared(lab.study.shared, cell["seed"])])
    y, w = map(torch.from_numpy, lab.labels())
    probed = fit_probe(torch.from_numpy(x), y, torch.from_numpy(z), w)
    return {"uniformity": score, "accuracy": probed}


DRAWS = 30
SIZES = (8, 10, 13, 16, 25, 64, 260)


@table(lambda study: [{"shared": size} for size in SIZES])
def election(lab: Lab, cell: Cell) -> Cell:
    """Which candidates may be the reference, and is noise ever elected?

    The platform elects among the study's priors, an untrained one, and isotropic noise, which has
    the best uniformity of all. A cell contains shares over many draws of the shared set.
    """
    seen, size = Counter[str](), cell["shared"]
    sound = {spec: lab.features(spec)[0] for spec in lab.study.priors}
    candidates = sound | {"untrained": lab.features(lab.study.weak[0])[0]}
    width = max(x.shape[1] for x in sound.values())
    for draw in range(DRAWS):
        seed = derive_seed(cell["seed"], "election", draw)
        at = lab.shared(size, seed)
        noise = np.random.default_rng(seed).standard_normal((size, width), np.float32)
        asked = {name: x[at] for name, x in candidates.items()} | {"noise": noise}
        try:
            elected = elect(asked, "best", 1, seed)
        except ParticipantError:
            seen["no reference"] += 1
            continue
        seen.update("sound" if name in sound else name for name in elected.accepted)
        seen["noise elected"] += elected.reference == "noise"
    return {
        "sound accepted": seen["sound"] / len(sound) / DRAWS,
        "untrained accepted": seen["untrained"] / DRAWS,
        "noise accepted": seen["noise"] / DRAWS,
        "noise elected": seen["noise elected"] / DRAWS,
        "no reference": seen["no reference"] / DRAWS,
    }


PAPER = {"reference": "best", "solver": "sgd", "projection": "random"}
"""Section 3.3 of the paper: a random W, T by gradient descent, the most uniform prior as reference.
"""

TARGETS: dict[str, Cell] = {
    "the paper's": PAPER,
    "the paper's, our student": PAPER,
    "reference: best": {"reference": "best"},
    "projection: random": {"reference": "best", "projection": "random"},
    "solver: procrustes": {"solver": "procrustes"},
    "solver: sgd": {"solver": "sgd"},
    "replicas: 3": {"replicas": 3},
    "weak third": {},
    "weak third, shards by R2": {"assign": lambda agreed: {"weights": agreed.r2()}},
}
"""Recipes that differ from ours in how targets are made: arguments of :meth:`Lab.collaborate`."""

STUDENT: dict[str, Cell] = {
    "the paper's": {"loss": "mse", "head": "linear"},
    "loss: mse": {"loss": "mse"},
    "head: linear": {"head": "linear"},
    "whiten: true": {"whiten": True},
    "augment: none": {"augment": "none"},
}
"""Recipes that differ from ours in the student's training: changes of its settings."""


def balanced(made: Made) -> Made:
    """Return targets with the same mean and scale for every participant."""
    targets = made.targets.copy()
    for owner in np.unique(made.participants):
        mine = made.participants == owner
        targets[mine] = scaled(targets[mine])
    return replace(made, targets=targets)


def phi_s(made: Made) -> Made:
    """Return targets normalised by PHI-S (Ranzinger et al. 2024): equal variance in every entry.

    Principal components are rotated by a Hadamard matrix and share a single scale.
    """
    targets = scaled(made.targets)
    n = targets.shape[1]
    axes = principal_axes(torch.from_numpy(targets).double(), n).numpy()
    rotated = targets @ axes @ hadamard(n) / n**0.5
    return replace(made, targets=rotated.astype(np.float32))


def scaled(targets: Array) -> Array:
    """Return centred targets with a mean square of 1."""
    centred = targets - targets.mean(axis=0)
    unit: Array = centred / np.sqrt(np.square(centred).mean())
    return unit


NORMALISED: dict[str, Callable[[Made], Made]] = {
    "each participant normalised": balanced,
    "PHI-S": phi_s,
}
"""Recipes that normalise targets after they are made."""


@table(lambda _: [{"recipe": r} for r in dict.fromkeys(("ours", *STUDENT, *NORMALISED, *TARGETS))])
def recipe(lab: Lab, cell: Cell) -> Cell:
    """Which parts of a recipe matter: ours, the paper's, and ours with one change.

    The seconds include the cost of each. In the last rows one of the participants has an untrained
    prior.
    """
    name, seed = cell["recipe"], cell["seed"]
    priors = (*lab.study.priors[:-1], lab.study.weak[-1]) if "weak third" in name else None
    made = lab.collaborate(seed, priors=priors, **TARGETS.get(name, {}))
    normalise = NORMALISED.get(name)
    targets = normalise(made) if normalise else made
    return lab.student(targets, seed, **STUDENT.get(name, {}))
