"""The paper's tables, but for the one with a file of its own: ``continual``."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances

from coopt_fl.core.errors import ParticipantError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.policies.reference import Election, elect
from coopt_fl.registry import PARTS
from coopt_fl.report.tsne import embed
from coopt_fl.students.objectives import on_targets
from experiments.agreement import Array, as_told, uniformity_alone
from experiments.figures import clocks, curves, scatters
from experiments.lab import Lab
from experiments.online import online
from experiments.scales import Study
from experiments.table import Cell, table

ONLINE = {"one teacher online": 1, "every teacher online": None}
"""Distillation whose teachers look at each view of each step, and how many of the priors these are.

A study says for how many epochs, because each takes several times as long as ours.
"""


def objectives(study: Study) -> list[Cell]:
    """Return a row for each objective, and for those who distil online if the study has them."""
    online = [name for name, epochs in zip(ONLINE, study.online, strict=False) if epochs]
    return [{"objective": name} for name in ("random", *PARTS.shipped("objective"), *online)]


@table(objectives, clocks)
def table1_baselines(lab: Lab, cell: Cell) -> Cell:
    """CoOpt against self-supervised learning: train by the objective, probed again and again.

    All objectives have the same loop, images, optimizer, precision, clock and probe.
    """
    study, name = lab.study, cell["objective"]
    if name not in ONLINE:
        return train(lab, cell, every=study.every)
    specs, epochs = study.priors[: ONLINE[name]], study.online[list(ONLINE).index(name)]
    objective = online(specs, study.precision)
    every = max(1, epochs * study.every // study.student.epochs)
    return lab.student(None, cell["seed"], every=every, objective=objective, epochs=epochs)


def train(lab: Lab, cell: Cell, *, every: int, **changes: Any) -> Cell:
    """Train by ``cell["objective"]``; see :meth:`Lab.student` for the rest."""
    objective, seed = cell["objective"], cell["seed"]
    if objective == "random":
        return {"accuracy": lab.random(seed)}
    made = lab.collaborate(seed) if on_targets(objective) else None
    return lab.student(made, seed, every=every, objective=objective, **changes)


AT_EQUAL_SECONDS = ("random", "regression", "dcl", "byol")
PROBES = 5
"""Of a training at equal seconds, about."""


@table(lambda study: [{"objective": name} for name in AT_EQUAL_SECONDS], curves)
def equal_seconds(lab: Lab, cell: Cell) -> Cell:
    """CoOpt and two baselines, each trained for the same seconds on one device, targets counted.

    The number of epochs follows from the second epoch of a training of two.
    """
    objective, seed = cell["objective"], cell["seed"]
    if objective == "random":
        return {"accuracy": lab.random(seed)}
    made = lab.collaborate(seed) if on_targets(objective) else None
    prepared = made.preparation[0] if made else 0.0
    first, second = lab.student(made, seed, epochs=2, every=1, objective=objective)["curve"]
    epoch = second["seconds"] - first["seconds"]
    epochs = max(1, round((lab.study.seconds - prepared) / epoch))
    probes = max(1, epochs // PROBES)
    return lab.student(made, seed, epochs=epochs, every=probes, objective=objective)


CEILING = {"every prior, equal cost": lambda k: 1 / k, "every prior, K times the cost": lambda k: 1}


@table(lambda study: [{"targets": how} for how in ("coopt", *study.priors, *CEILING)])
def table2_centralized(lab: Lab, cell: Cell) -> Cell:
    """CoOpt against one prior for all samples, and against every prior for every sample.

    The ceiling has one head for each teacher, on PHI-S targets (AM-RADIO, Theia): at equal cost it
    sees one K-th of the samples, else all of them at K times the cost.
    """
    how, seed = cell["targets"], cell["seed"]
    if how == "coopt":
        made = lab.collaborate(seed)
    elif how in CEILING:
        made = lab.every_prior(seed, CEILING[how](len(lab.study.priors)))
    else:
        made = lab.centralize(how, seed)
    epochs = round(lab.study.student.epochs * len(lab.all) / len(made.rows))
    return lab.student(made, seed, epochs=epochs)  # as many samples seen, but for partial batches


STAGES: tuple[Cell, ...] = ({"trained": False}, {"trained": True, "lr": 1e-3})
"""Before and after a training that is slow enough for every architecture."""


@table(lambda study: [{"model": model} | stage for model in study.models for stage in STAGES])
def table3_architectures(lab: Lab, cell: Cell) -> Cell:
    """One optimized dataset for every architecture: train it on the same targets as all others."""
    model, seed = cell["model"], cell["seed"]
    if not cell["trained"]:
        return {"accuracy": lab.random(seed, model=model)}
    return lab.student(lab.collaborate(seed), seed, model=model, lr=cell["lr"])


def at_random(features: Mapping[str, Array], wanted: str, dim: int, seed: int) -> Election:
    """Elect any participant."""
    rng = np.random.default_rng(derive_seed(seed, "elect"))
    return as_told(features, list(features)[rng.integers(len(features))], dim, seed)


REFERENCES: dict[str, Cell] = {
    "worst": {"reference": "best", "elect": partial(uniformity_alone, choose=max)},
    "random": {"reference": "best", "elect": at_random},
    "best": {"reference": "best"},
    "consensus": {"reference": "consensus"},
}
"""The worst and the random one are elected without the platform's test for noise."""


def alignments(study: Study) -> list[Cell]:
    """Return each reference with the default solver, and each other solver with the best prior."""
    rows = [{"reference": reference, "solver": "ridge"} for reference in REFERENCES]
    others = ("none", "sgd", "lstsq", "procrustes")
    return rows + [{"reference": "best", "solver": solver} for solver in others]


@table(alignments)
def alignment(lab: Lab, cell: Cell) -> Cell:
    """To what targets are aligned, and how."""
    how = REFERENCES[cell["reference"]] | {"solver": cell["solver"]}
    made = lab.collaborate(cell["seed"], **how)
    return lab.student(made, cell["seed"]) | {"r2": float(np.mean(made.agreed.r2()))}


ALONE = "uniformity alone"


def elect_anyhow(features: Mapping[str, Array], wanted: str, dim: int, seed: int) -> Election:
    """Elect as the platform does; by uniformity alone where it finds no reference."""
    try:
        return elect(features, wanted, dim, seed)
    except ParticipantError:
        return replace(uniformity_alone(features, wanted, dim, seed), warnings=[ALONE])


def sizes(study: Study) -> list[Cell]:
    """Return a row for each size, with either reference where it is possible."""
    rows = [{"shared": size, "reference": "best"} for size in study.sizes]
    large = [size for size in study.sizes if size >= 2 * study.dim]
    return rows + [{"shared": size, "reference": "consensus"} for size in large]


@table(sizes)
def shared_size(lab: Lab, cell: Cell) -> Cell:
    """How large must the shared set be? Train on targets that so many samples aligned.

    A consensus needs twice as many samples as a target has numbers. Where the platform finds no
    reference and stops (always below 7 samples, sometimes with a few more), the reference of this
    table is the most uniform prior; ``elected by`` of such a cell is ``uniformity alone``.
    """
    how = {"shared": cell["shared"], "reference": cell["reference"]}
    made = lab.collaborate(cell["seed"], elect=elect_anyhow, **how)
    found = lab.student(made, cell["seed"]) | {"r2": float(np.mean(made.agreed.r2()))}
    return found | ({"elected by": ALONE} if ALONE in made.agreed.election.warnings else {})


@table(lambda study: [{"shared": size} for size in study.sizes])
def overhead(lab: Lab, cell: Cell) -> Cell:
    """What collaboration adds to targets and training.

    Uniformity, the test of alignability and alignment, and each participant's features of the
    shared set S. References of few samples are elected as in ``shared_size``.
    """
    how = {"shared": cell["shared"], "reference": "best", "elect": elect_anyhow}
    made = lab.collaborate(cell["seed"], **how)
    training = lab.student(made, cell["seed"])["training s"]
    targets, added = sum(made.optimize), made.align + made.represent
    return {
        "uniformity and alignment s": made.align,
        "features of S s": made.represent,
        "targets s": targets,
        "training s": training,
        "share of targets": added / targets,
        "share of training": added / training,
    }


TRIED: dict[str, tuple[str, Cell]] = {
    "best": ("best", {}),
    "consensus": ("consensus", {}),
    "consensus, whitened": ("consensus", {"whiten": True}),
    "every prior, whitened": ("every prior", {"whiten": True}),
    "rela": ("consensus", {"objective": "rela"}),
}
"""What the targets come from, and how the student is trained."""

WITHOUT = ("byol", "simclr")
"""Trainings without priors."""


@table(lambda study: [{"how": how} for how in ("random", *TRIED, *WITHOUT)], curves)
def weak_priors(lab: Lab, cell: Cell) -> Cell:
    """Priors that have seen no image, and early training, probed after every epoch.

    The paper's open problem. What is tried against it: a consensus in place of the best prior;
    targets whitened, because those of weak priors vary in few directions; every weak prior for
    every sample, at K times the cost; and ReLA, which regresses two strongly augmented views and
    goes on with BYOL when that no longer helps.
    """
    how, seed, weak = cell["how"], cell["seed"], lab.study.weak
    if how == "random":
        return {"accuracy": lab.random(seed)}
    if how in WITHOUT:
        return lab.student(None, seed, every=1, objective=how)
    reference, changes = TRIED[how]
    made = (
        lab.every_prior(seed, priors=weak)
        if reference == "every prior"
        else lab.collaborate(seed, priors=weak, reference=reference)
    )
    return lab.student(made, seed, every=1, **changes)


ALIGNMENTS = {
    "not aligned": {"reference": "best", "solver": "none"},
    "aligned to the best prior": {"reference": "best"},
    "aligned to the consensus": {"reference": "consensus"},
}
SHOWN = 1200
"""Most targets that are compared and drawn; a seeded choice."""


@table(lambda study: [{"targets": how} for how in ALIGNMENTS], scatters)
def tsne(lab: Lab, cell: Cell) -> Cell:
    """What alignment does to targets.

    The accuracy of this table is no student's: it is how often the nearest target of *another*
    participant is of the same class, which is chance where participants mean different things by a
    target. The figure shows the first seed's targets by t-SNE; colour is the class, shape the
    participant.
    """
    made = lab.collaborate(cell["seed"], **ALIGNMENTS[cell["targets"]])
    rows = lab.shared(min(SHOWN, len(lab.all)), 0)
    targets, owners, labels = made.targets[rows], made.participants[rows], lab.labels()[0][rows]
    found: Cell = {"accuracy": across(targets, owners, labels)}
    if cell["seed"] == lab.study.seeds[0]:
        found["places"] = embed(targets, seed=0).round(1).tolist()
        found["owners"], found["labels"] = owners.tolist(), labels.tolist()
    return found


def across(
    targets: NDArray[np.float32], owners: NDArray[np.int16], labels: NDArray[np.int64]
) -> float:
    """Return the share of rows whose nearest row (by cosine) of another participant agrees."""
    distance = pairwise_distances(targets, metric="cosine")
    distance[owners[:, None] == owners] = np.inf
    return float((labels[distance.argmin(1)] == labels).mean())
