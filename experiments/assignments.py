"""A crowd's shards: who makes the targets of which images, and with which consensus."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from coopt_fl.core.seeding import derive_seed
from coopt_fl.data.partition import drawn
from coopt_fl.data.regions import regions as alike
from coopt_fl.federation.groups import Groups
from coopt_fl.policies.assignment import FASTEST
from experiments.agreement import Agreed, Rows
from experiments.competence import images_by_competence, predicted, regions, thumbnails
from experiments.heterogeneous import student
from experiments.lab import Lab
from experiments.specialists import of_crowd
from experiments.table import Cell, table

Assign = Callable[[Lab, Agreed, int], Mapping[str, Any]]
"""Returns ``weights`` or ``groups`` for :meth:`Lab.agree`, given an agreement with equal shards."""


def equal(lab: Lab, agreed: Agreed, seed: int) -> Cell:
    """Keep equal shards."""
    return {}


def by_speed(lab: Lab, agreed: Agreed, seed: int) -> Cell:
    """Give shards in proportion to speed, as ``assignment.by=speed`` does."""
    speed = np.array([1 / lab.features(spec)[1] for spec in of_crowd(lab.study)])
    return {"weights": np.minimum(speed, FASTEST * np.median(speed)).tolist()}


def by_r2(lab: Lab, agreed: Agreed, seed: int) -> Cell:
    """Give shards in proportion to the held-out R2."""
    return {"weights": agreed.r2()}


def skewed(alpha: float, lab: Lab, agreed: Agreed, seed: int) -> Cell:
    """Share out each class by a Dirichlet distribution, as ``assignment.partition`` does."""
    names = list(agreed.features)
    seed = derive_seed(seed, "partition")
    owner = drawn(lab.labels()[0], alpha, np.ones(len(names)), seed)
    parts = {name: np.flatnonzero(owner == k) for k, name in enumerate(names)}
    return {"groups": Groups(parts, owned=True)}


def half(whose: Callable[[Sequence[float]], float], lab: Lab, agreed: Agreed, seed: int) -> Cell:
    """Give one participant, the best or the worst by its held-out R2, as much as all others."""
    r2 = agreed.r2()
    weights = np.ones(len(r2))
    weights[r2.index(whose(r2))] = len(r2) - 1
    return {"weights": weights.tolist()}


def first_alone(lab: Lab, agreed: Agreed, seed: int) -> Cell:
    """Give all to the first participant."""
    return {"weights": [float(k == 0) for k in range(len(agreed.features))]}


def by_training(lab: Lab, agreed: Agreed, seed: int) -> Cell:
    """Give each domain to the specialist with its labels, or if there is none to the first."""
    names, of, owner = list(agreed.features), lab.domains("train"), trained_on(lab)
    owners = np.array([owner[domain] for domain in of.tolist()])
    parts = {name: np.flatnonzero(owners == k) for k, name in enumerate(names)}
    return {"groups": Groups(parts, owned=True)}


def trained_on(lab: Lab) -> dict[str, int]:
    """Return the index of the specialist with the labels of each domain; 0 if there is none."""
    crowd = of_crowd(lab.study)
    return {
        domain: next((k for k, spec in enumerate(crowd) if f"-{domain}/labels/" in spec), 0)
        for domain in np.unique(lab.domains("train")).tolist()
    }


Divide = Callable[[Lab, Agreed, int], Rows]
"""Returns the region of each image."""

REGIONS = 8


def undivided(lab: Lab, agreed: Agreed, seed: int) -> Rows:
    """Return a single region."""
    return np.zeros(len(lab.all), np.int64)


def clusters(lab: Lab, agreed: Agreed, seed: int) -> Rows:
    """Return regions of similar targets, predicted from thumbnails."""
    return regions(agreed, thumbnails(lab.source), REGIONS, seed)


def looks(lab: Lab, agreed: Agreed, seed: int) -> Rows:
    """Return regions of similar thumbnails, which need no prior."""
    return alike(lab.source, agreed.plan.shared, seed, lab.study.data).astype(np.int64)


def domains(lab: Lab, agreed: Agreed, seed: int) -> Rows:
    """Return the true domains as regions."""
    return np.unique(lab.domains("train"), return_inverse=True)[1]


def competent(divide: Divide, most: float, lab: Lab, agreed: Agreed, seed: int) -> Cell:
    """Give each region to the most competent; a shard has at most ``most`` times the mean size."""
    parts = images_by_competence(agreed, divide(lab, agreed, seed), most, seed)
    return {"groups": Groups(parts, owned=True)}


TRAINED = "specialists with labels, else the first"
FREE = float("inf")

SHARDS: dict[str, Assign] = {
    "equal": equal,
    "competence, at most twice": partial(competent, clusters, 2),
    "competence by looks, at most twice": partial(competent, looks, 2),
    "competence by looks": partial(competent, looks, FREE),
    "competence": partial(competent, clusters, FREE),
    "competence, equal": partial(competent, clusters, 1),
    "by R2": by_r2,
    "the best five": partial(competent, undivided, 2),
    "the best alone": partial(competent, undivided, FREE),
    "competence, domains told": partial(competent, domains, FREE),
    "the first alone": first_alone,
    TRAINED: by_training,
    "by speed": by_speed,
    "dirichlet:0.1": partial(skewed, 0.1),
    "half by the best": partial(half, max),
    "half by the worst": partial(half, min),
}
"""Assignments of samples to participants. "The best five" (of ten) and "the best alone" are
competence in a single region, with shards of at most twice the mean size and of any size: the gain
of competence over them is due to regions. Which prior is the best alone depends on the consensus;
the first of the crowd is the best by its own probe."""


@table(lambda _: [{"shards": how} for how in SHARDS])
def crowd_shards(lab: Lab, cell: Cell) -> Cell:
    """Which participant should get which samples? All align to the consensus.

    ``r2`` is the held-out R2 on the shared set, with each sample predicted by its owner;
    ``largest shard`` is the largest share of all samples. Assignment by competence uses the same
    held-out targets, by region, so its ``r2`` is slightly optimistic, but no accuracy is.
    """
    return by_shards(lab, cell["seed"], cell["shards"])


ALONE = f"{TRAINED}; no others"
"""All images of a domain go to one participant; without others in the crowd, as in a run with
``assignment.partition``, nobody else has a vote on the consensus."""

AGREED = (
    "equal",
    "competence by looks, at most twice",
    "competence by looks",
    "the best alone",
    "the first alone",
    "competence, domains told",
    TRAINED,
    ALONE,
)


@table(lambda _: [{"consensus": "gcca", "shards": how} for how in AGREED])
def crowd_consensus(lab: Lab, cell: Cell) -> Cell:
    """Is a student better if all align to the directions that the most priors know?

    The measures are those of ``crowd_shards``, which has the same rows with the usual consensus.
    """
    return by_shards(lab, cell["seed"], cell["shards"], consensus=cell["consensus"])


SPECIALIZED = (
    "equal",
    "competence by looks, at most twice",
    "competence by looks",
    TRAINED,
    ALONE,
)


@table(lambda _: [{"consensus": "gcca", "shards": how} for how in SPECIALIZED])
def crowd_of_specialists(lab: Lab, cell: Cell) -> Cell:
    """Is the collaboration better than each single prior, if no prior knows all domains?

    The crowd without its priors from ImageNet, so that "the first" is the specialist for
    photographs. The measures are those of ``crowd_shards``; the single priors are in
    ``crowd_central``.
    """
    rest = [spec for spec in of_crowd(lab.study) if not spec.startswith("timm:")]
    narrow = with_crowd(lab, rest)
    return by_shards(narrow, cell["seed"], cell["shards"], consensus=cell["consensus"])


def with_crowd(lab: Lab, crowd: Sequence[str]) -> Lab:
    """Return the lab with another crowd; both share features."""
    found = copy(lab)
    found.study = replace(lab.study, crowd=tuple(crowd))
    return found


def by_shards(lab: Lab, seed: int, shards: str, **how: Any) -> Cell:
    """Train a student of the crowd's targets, made by ``shards``, and return all measures."""
    if shards == ALONE:
        makers = sorted({*trained_on(lab).values()})
        lab, shards = with_crowd(lab, [of_crowd(lab.study)[k] for k in makers]), TRAINED
    return measured(lab, seed, of_crowd(lab.study), SHARDS[shards], **how)


def measured(lab: Lab, seed: int, priors: Sequence[str], assign: Assign, **how: Any) -> Cell:
    """Train a student of the targets that ``priors`` make, and return all measures."""
    made = lab.collaborate(
        seed, priors=priors, assign=lambda agreed: assign(lab, agreed, seed), **how
    )
    return student(lab, made, seed) | shares(made.agreed)


def shares(agreed: Agreed) -> Cell:
    """Return measures of the shards that need no training."""
    sizes = {name: len(agreed.rows_of(name)) for name in agreed.features}
    first = max(sizes, key=lambda name: sizes[name])
    share = sizes[first] / sum(sizes.values())
    return {"r2": predicted(agreed), "largest shard": share, "whose": first}
