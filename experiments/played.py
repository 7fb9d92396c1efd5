"""Simulated runs of the platform up to their audit, with precomputed features, and lies."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from coopt_fl.config.schema import AssignmentConfig
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data.regions import regions
from coopt_fl.federation.groups import Groups
from coopt_fl.policies.assignment import Member
from coopt_fl.policies.competence import by_competence, mean_errors
from coopt_fl.policies.evidence import Expected
from coopt_fl.policies.spreads import Alike
from coopt_fl.targets import CONSENSUS
from experiments.agreement import Agreed, Array, Rows, as_told
from experiments.lab import Lab
from experiments.table import Cell

EXTRA = {
    "random18": "random:resnet18?size=96",
    "trivial64": "trivial:64",
    "trivial512": "trivial:512",
}
MIXES = {
    "strong": ("trained0", "trained1", "trained2"),
    "mixed": ("trained0", "trained1", "random0", "trivial64"),
    "six": ("trained0", "trained1", "trained2", "random0", "random18", "trivial512"),
    "weak": ("random0", "random2", "trivial64", "random18"),
}
"""Participants by mix, named after their priors: the study's own (trained), its ``weak`` ones
(random), and others."""

Answers = list[np.ndarray]
"""The float16 targets of each unit, in the order of the unit's ids."""

Generator = np.random.Generator


@dataclass(frozen=True, eq=False)
class Played:
    """A run before its audit.

    Attributes:
        lab: The study in which it is simulated.
        agreed: The plan, and all alignments.
        expected: What the platform expects of each participant's targets.
        honest: Each participant's honest targets, float16 (N, n), of all images.
        fitted_on: Blocks on which the reference's projection was fitted; their spread is not
            judged, because a PCA has a wider spread there than elsewhere.
        regions: Numbers of the region of each block and of each shared sample, if no block mixes
            them.
    """

    lab: Lab
    agreed: Agreed
    expected: dict[str, Expected]
    honest: dict[str, np.ndarray]
    fitted_on: list[int]
    regions: tuple[Rows, Rows] | None = None

    def owner(self, index: int) -> str:
        """Return the participant that optimizes a block."""
        return self.agreed.plan.contributors[self.agreed.plan.owners[index]]

    def alike(self, index: int) -> Alike | None:
        """Return the samples whose spread tells that of a unit, or None if none do."""
        plan = self.agreed.plan
        if index in self.fitted_on:
            return None
        unit = plan.units[index]
        if self.regions is None:
            return Alike.everything(len(unit), len(plan.shared))
        of_block, of_shared = self.regions
        return Alike.within(unit, plan.blocks[index], of_shared == of_block[index])

    def answers(self, said: Mapping[str, np.ndarray] | None = None) -> Answers:
        """Return the answers to all units; ``said`` replaces the targets of some participants."""
        everyone = self.honest | dict(said or {})
        return [everyone[self.owner(k)][unit] for k, unit in enumerate(self.agreed.plan.units)]

    def untrained(self, name: str) -> np.ndarray:
        """Return the targets that a trained participant would make with an untrained prior."""
        features, _ = self.lab.features(prior(self.lab, f"random{name[-1]}"))
        return self.agreed.targets(name, features).astype(np.float16)


@lru_cache(maxsize=4)  # every lie is told in the same few runs
def play(
    lab: Lab, seed: int, mix: str, size: int, dim: int, reference: str, solver: str, fraction: float
) -> Played:
    """Draw the plan of a run, fit its alignments, and simulate it up to the audit.

    The reference is the consensus, or any participant that is wide enough; an election would always
    choose a trained one.
    """
    features, order = _roster(lab, mix, seed)
    able = [name for name, x in features.items() if x.shape[1] >= dim]
    wanted = CONSENSUS if reference == CONSENSUS else able[seed % len(able)]
    how: Cell = {"dim": dim, "solver": solver, "shared": size, "audit": fraction, "order": order}
    return before_audit(lab, lab.agree(seed, features, reference=wanted, elect=as_told, **how))


@lru_cache(maxsize=4)
def play_by_competence(
    lab: Lab, seed: int, mix: str, size: int, dim: int, fraction: float, consensus: str
) -> Played:
    """Simulate a run with ``assignment.by=competence`` up to its audit.

    All align to the ``consensus`` by ridge. As on the platform, no block mixes regions, and
    blocks get their owners after the alignments.
    """
    features, order = _roster(lab, mix, seed)
    shared, source = lab.shared(size, seed), lab.source
    region = regions(source, shared, seed, lab.study.data)
    groups = Groups({str(k): source.ids[region == k] for k in np.unique(region)}, owned=False)
    how: Cell = {
        "dim": dim,
        "shared": size,
        "audit": fraction,
        "order": order,
        "consensus": consensus,
    }
    agreed = lab.agree(seed, features, elect=as_told, groups=groups, **how)
    of_block, of_shared = numbers = agreed.plan.numbered_regions()
    run = replace(before_audit(lab, agreed), regions=numbers)
    members, limit = [], AssignmentConfig().most or math.inf
    for name in agreed.plan.contributors:
        wrong = np.square(run.expected[name].heldout - agreed.shared_targets).sum(axis=1)
        known = mean_errors(wrong.astype(np.float64), of_shared, len(groups.ids))
        members.append(Member(name, errors=known[of_block], most=limit))
    plan = agreed.plan.with_owners(by_competence(range(len(agreed.plan.blocks)), members))
    return replace(run, agreed=replace(agreed, plan=plan))


def _roster(lab: Lab, mix: str, seed: int) -> tuple[dict[str, Array], list[str]]:
    """Return the features of a mix's participants, and their order in the plan."""
    rng = np.random.default_rng(derive_seed(seed, "order"))
    features = {name: lab.features(prior(lab, name))[0] for name in MIXES[mix]}
    return features, rng.permutation(MIXES[mix]).tolist()


def before_audit(lab: Lab, agreed: Agreed) -> Played:
    """Simulate a run up to its audit, with honest targets of all participants."""
    expected = {
        name: Expected(agreed.targets(name, agreed.on_s[name]), heldout.targets, heldout.r2)
        for name, heldout in agreed.held_out().items()
    }
    honest = {
        name: agreed.targets(name, x).astype(np.float16) for name, x in agreed.features.items()
    }
    reference, rows = agreed.election.reference, agreed.recipe.rows_to_project
    fitted_on = agreed.plan.projected(reference, rows)
    return Played(lab, agreed, expected, honest, fitted_on)


def prior(lab: Lab, name: str) -> str:
    """Return the specification of a participant's prior."""
    own = lab.study.priors if kind(name) == "trained" else lab.study.weak
    return EXTRA.get(name) or own[int(name[-1])]


def kind(name: str) -> str:
    """Return the kind of a participant's prior: trained or untrained."""
    return "trained" if name.startswith("trained") else "untrained"


def _mixed(y: Array, rng: Generator, share: float) -> Array:
    """Return targets of which a share is replaced by targets of other samples."""
    wrong = rng.random(len(y)) < share
    return np.where(wrong[:, None], y[rng.permutation(len(y))], y)


def _on_a_line(y: Array, other: Array, rng: Generator) -> Array:
    line: Array = y.mean(axis=0) + np.outer(rng.standard_normal(len(y)), y[0] - y.mean(axis=0))
    return line


def _rotated(y: Array, other: Array, rng: Generator) -> Array:
    turn = np.linalg.qr(rng.standard_normal((y.shape[1], y.shape[1])))[0]
    turned: Array = (y - y.mean(axis=0)) @ turn + y.mean(axis=0)
    return turned


BY_SAMPLE: dict[str, Callable[[Array, Array, Generator], Array]] = {
    "noise": lambda y, other, rng: y.mean(axis=0) + y.std() * rng.standard_normal(y.shape),
    "constant": lambda y, other, rng: np.repeat(y[:1], len(y), axis=0),
    "ten values": lambda y, other, rng: y[rng.integers(0, 10, len(y))],
    "on a line": _on_a_line,
    "targets of other samples": lambda y, other, rng: y[rng.permutation(len(y))],
    "half of other samples": lambda y, other, rng: _mixed(y, rng, 0.5),
    "a tenth of other samples": lambda y, other, rng: _mixed(y, rng, 0.1),
    "another's, of other samples": lambda y, other, rng: other[rng.permutation(len(other))],
    "another's, of the same samples": lambda y, other, rng: other,
    "rotated": _rotated,
    "sign flipped": lambda y, other, rng: -y,
    "scaled by 2": lambda y, other, rng: 2 * y,
    "scaled by 0.5": lambda y, other, rng: 0.5 * y,
    "scaled by 1.1": lambda y, other, rng: 1.1 * y,
}
"""Lies made from the honest targets (N, n) of all images, and from another participant's."""

PERMUTED = {"permuted within each block": None, "permuted within one block": 1}
"""Lies with the right targets in the wrong order: in how many blocks, None for all."""

SWAPPED = "untrained prior instead"

LIES = (*BY_SAMPLE, SWAPPED, *PERMUTED)
"""All kinds of lies."""


def tell(lie: str, run: Played, liar: str, rng: Generator) -> Answers:
    """Return all answers of a run in which one participant lies.

    It is honest on the shared set, which it knows.
    """
    plan, honest = run.agreed.plan, run.honest[liar]
    if lie in PERMUTED:
        answers = run.answers()
        for index in plan.blocks_of(liar)[: PERMUTED[lie]]:
            free = np.flatnonzero(~np.isin(plan.units[index], plan.shared))
            answers[index][free] = answers[index][rng.permutation(free)]
        return answers
    if lie == SWAPPED:
        said = run.untrained(liar)
    else:
        other = run.honest[rng.choice([name for name in run.honest if name != liar])]
        said = BY_SAMPLE[lie](honest.astype(np.float32), other, rng).astype(np.float16)
    said[plan.shared] = honest[plan.shared]
    return run.answers({liar: said})
