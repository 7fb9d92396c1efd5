"""The paper's tables, except ``continual``, which has a file of its own."""

from collections.abc import Callable, Mapping
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
from experiments.lab import Lab, Made
from experiments.online import online
from experiments.scales import Study
from experiments.table import Cell, table

ONLINE = {"one teacher online": 1, "every teacher online": None}
"""Distillation with teachers that compute features of each view in each step: number of teachers,
None for all priors.

The study sets the number of epochs, because an epoch takes several times as long as ours.
"""


def objectives(study: Study) -> list[Cell]:
    """Return a row for each objective, and for online distillation if the study has epochs."""
    taught = [name for name, epochs in zip(ONLINE, study.online, strict=False) if epochs]
    return [{"objective": name} for name in ("random", *PARTS.shipped("objective"), *taught)]


@table(objectives, clocks)
def table1_baselines(lab: Lab, cell: Cell) -> Cell:
    """CoOpt against self-supervised learning: accuracy over training, by objective.

    All objectives share the loop, images, optimizer, precision, clock and probe.
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
"""Approximate number of probes of a training at equal seconds."""


@table(lambda study: [{"objective": name} for name in AT_EQUAL_SECONDS], curves)
def equal_seconds(lab: Lab, cell: Cell) -> Cell:
    """CoOpt and two baselines, each for the same seconds on one device, including targets.

    The number of epochs is computed from the time of the second epoch of a short training.
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


CEILING: dict[str, Callable[[int], float]] = {
    "every prior, equal cost": lambda k: 1 / k,
    "every prior, K times the cost": lambda k: 1,
}


@table(lambda study: [{"targets": how} for how in ("coopt", *study.priors, *CEILING)])
def table2_centralized(lab: Lab, cell: Cell) -> Cell:
    """CoOpt against one prior for all samples, and against every prior for every sample.

    The latter, the ceiling, has one head per prior on PHI-S targets (AM-RADIO, Theia). It uses 1/K
    of the samples at equal cost, or all of them at K times the cost.
    """
    how, seed = cell["targets"], cell["seed"]
    made: Made
    if how == "coopt":
        made = lab.collaborate(seed)
    elif how in CEILING:
        made = lab.every_prior(seed, CEILING[how](len(lab.study.priors)))
    else:
        made = lab.centralize(how, seed)
    epochs = round(lab.study.student.epochs * len(lab.all) / len(made.rows))
    return lab.student(made, seed, epochs=epochs)  # as many samples seen, but for partial batches


STAGES: tuple[Cell, ...] = ({"trained": False}, {"trained": True, "lr": 1e-3})
"""Before training, and after it with a learning rate low enough for every architecture."""


@table(lambda study: [{"model": model} | stage for model in study.models for stage in STAGES])
def table3_architectures(lab: Lab, cell: Cell) -> Cell:
    """One optimized dataset for all architectures: each is trained on the same targets."""
    model, seed = cell["model"], cell["seed"]
    if not cell["trained"]:
        return {"accuracy": lab.random(seed, model=model)}
    return lab.student(lab.collaborate(seed), seed, model=model, lr=cell["lr"])


def at_random(features: Mapping[str, Array], wanted: str, dim: int, seed: int) -> Election:
    """Elect a random participant."""
    rng = np.random.default_rng(derive_seed(seed, "elect"))
    return as_told(features, list(features)[rng.integers(len(features))], dim, seed)


REFERENCES: dict[str, Cell] = {
    "worst": {"reference": "best", "elect": partial(uniformity_alone, choose=max)},
    "random": {"reference": "best", "elect": at_random},
    "best": {"reference": "best"},
    "consensus": {"reference": "consensus"},
}
"""The worst and the random reference are elected without the platform's test of alignability."""


def alignments(study: Study) -> list[Cell]:
    """Return rows for each reference with ridge, and each other solver with the best prior."""
    rows = [{"reference": reference, "solver": "ridge"} for reference in REFERENCES]
    others = ("none", "sgd", "lstsq", "procrustes")
    return rows + [{"reference": "best", "solver": solver} for solver in others]


@table(alignments)
def alignment(lab: Lab, cell: Cell) -> Cell:
    """Alignment: the choice of the reference, and of the solver."""
    how = REFERENCES[cell["reference"]] | {"solver": cell["solver"]}
    made = lab.collaborate(cell["seed"], **how)
    return lab.student(made, cell["seed"]) | {"r2": float(np.mean(made.agreed.r2()))}


ALONE = "uniformity alone"


def elect_anyhow(features: Mapping[str, Array], wanted: str, dim: int, seed: int) -> Election:
    """Elect as the platform does, but by uniformity alone if it finds no reference."""
    try:
        return elect(features, wanted, dim, seed)
    except ParticipantError:
        return replace(uniformity_alone(features, wanted, dim, seed), warnings=[ALONE])


def sizes(study: Study) -> list[Cell]:
    """Return a row for each size of S with the best prior, and with a consensus where possible."""
    rows = [{"shared": size, "reference": "best"} for size in study.sizes]
    large = [size for size in study.sizes if size >= 2 * study.dim]
    return rows + [{"shared": size, "reference": "consensus"} for size in large]


@table(sizes)
def shared_size(lab: Lab, cell: Cell) -> Cell:
    """How large must the shared set be?

    A consensus needs at least twice as many samples as the width of a target. If the platform would
    find no reference and stop (always with fewer than 7 samples, sometimes with a few more), the
    most uniform prior is the reference, and the cell has ``elected by: uniformity alone``.
    """
    how = {"shared": cell["shared"], "reference": cell["reference"]}
    made = lab.collaborate(cell["seed"], elect=elect_anyhow, **how)
    found = lab.student(made, cell["seed"]) | {"r2": float(np.mean(made.agreed.r2()))}
    return found | ({"elected by": ALONE} if ALONE in made.agreed.election.warnings else {})


@table(lambda study: [{"shared": size} for size in study.sizes])
def overhead(lab: Lab, cell: Cell) -> Cell:
    """The overhead of collaboration, relative to making targets and to training.

    It consists of uniformity, the test of alignability and alignment, and of each participant's
    features of the shared set S. References are elected as in ``shared_size``.
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
"""Source of the targets, and changes of the student's settings."""

WITHOUT = ("byol", "simclr")
"""Objectives without priors."""


@table(lambda study: [{"how": how} for how in ("random", *TRIED, *WITHOUT)], curves)
def weak_priors(lab: Lab, cell: Cell) -> Cell:
    """Untrained priors, the paper's open problem: early training, probed after every epoch.

    Remedies that are tried: a consensus instead of the best prior; whitened targets, because those
    of weak priors vary in few directions; every weak prior for every sample, at K times the cost;
    and ReLA, which regresses two strongly augmented views, and continues with BYOL when that no
    longer helps.
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


ALIGNMENTS: dict[str, Cell] = {
    "not aligned": {"reference": "best", "solver": "none"},
    "aligned to the best prior": {"reference": "best"},
    "aligned to the consensus": {"reference": "consensus"},
}
SHOWN = 1200
"""Most targets that are compared and drawn, chosen by seed."""


@table(lambda study: [{"targets": how} for how in ALIGNMENTS], scatters)
def tsne(lab: Lab, cell: Cell) -> Cell:
    """The effect of alignment on targets.

    The accuracy of this table is not a student's: it is how often the nearest target of *another*
    participant is of the same class, which is chance if participants' targets are incompatible. The
    figure shows the first seed's targets by t-SNE; colour is the class, shape the participant.
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
    """Return how often the nearest row (by cosine) of another participant has the same label."""
    distance = pairwise_distances(targets, metric="cosine")
    distance[owners[:, None] == owners] = np.inf
    return float((labels[distance.argmin(1)] == labels).mean())
