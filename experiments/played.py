"""Runs of the platform up to their audit, played with features that are computed once, and lies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from coopt_fl.core.seeding import derive_seed
from coopt_fl.policies.evidence import Expected
from coopt_fl.targets import CONSENSUS
from experiments.agreement import Agreed, Array, as_told
from experiments.lab import Lab

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
"""Participants, named for their priors: the study's own, its ``weak`` ones (random), and others."""

Answers = list[np.ndarray]
"""What came for each unit: float16 targets, in the order of the unit's ids."""

Generator = np.random.Generator


@dataclass(frozen=True, eq=False)
class Played:
    """A run before its audit.

    Attributes:
        lab: Where it is played.
        agreed: The plan, and everyone's alignment.
        expected: What the platform knows of everyone's targets.
        honest: Everyone's targets (N, n) of all images, float16.
        fitted_on: Blocks that the reference's projection was fitted on: a PCA is wider there than
            anywhere else.
    """

    lab: Lab
    agreed: Agreed
    expected: dict[str, Expected]
    honest: dict[str, np.ndarray]
    fitted_on: list[int]

    def owner(self, index: int) -> str:
        """Return who optimizes a block."""
        return self.agreed.plan.contributors[self.agreed.plan.owners[index]]

    def answers(self, said: Mapping[str, np.ndarray] | None = None) -> Answers:
        """Return what comes for each unit, where ``said`` replaces the targets of some."""
        everyone = self.honest | dict(said or {})
        return [everyone[self.owner(k)][unit] for k, unit in enumerate(self.agreed.plan.units)]

    def untrained(self, name: str) -> np.ndarray:
        """Return what a trained participant's targets were, had its prior not been trained."""
        features, _ = self.lab.features(prior(self.lab, f"random{name[-1]}"))
        return self.agreed.targets(name, features).astype(np.float16)


@lru_cache(maxsize=4)  # the runs in which each lie is told
def play(
    lab: Lab, seed: int, mix: str, size: int, dim: int, reference: str, solver: str, fraction: float
) -> Played:
    """Draw and fit everything that precedes the work.

    The reference is the consensus, or any participant that is wide enough: an election would pick
    the trained.
    """
    features = {name: lab.features(prior(lab, name))[0] for name in MIXES[mix]}
    able = [name for name, x in features.items() if x.shape[1] >= dim]
    wanted = CONSENSUS if reference == CONSENSUS else able[seed % len(able)]
    order = np.random.default_rng(derive_seed(seed, "order")).permutation(MIXES[mix]).tolist()
    how = {"dim": dim, "solver": solver, "shared": size, "audit": fraction, "order": order}
    return before_audit(lab, lab.agree(seed, features, reference=wanted, elect=as_told, **how))


def before_audit(lab: Lab, agreed: Agreed) -> Played:
    """Play a run up to its audit: everyone makes targets, and is honest."""
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
    """Return the prior of a participant."""
    own = lab.study.priors if kind(name) == "trained" else lab.study.weak
    return EXTRA.get(name) or own[int(name[-1])]


def kind(name: str) -> str:
    """Return what sort of prior a participant has."""
    return "trained" if name.startswith("trained") else "untrained"


def _mixed(y: Array, rng: Generator, share: float) -> Array:
    """Return targets of which a share are of other samples."""
    wrong = rng.random(len(y)) < share
    return np.where(wrong[:, None], y[rng.permutation(len(y))], y)


def _on_a_line(y: Array, other: Array, rng: Generator) -> Array:
    return y.mean(axis=0) + np.outer(rng.standard_normal(len(y)), y[0] - y.mean(axis=0))


def _rotated(y: Array, other: Array, rng: Generator) -> Array:
    turn = np.linalg.qr(rng.standard_normal((y.shape[1], y.shape[1])))[0]
    return (y - y.mean(axis=0)) @ turn + y.mean(axis=0)


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
"""From the honest targets (N, n) of all images, and those of some other participant."""

PERMUTED = {"permuted within each block": None, "permuted within one block": 1}
"""In how many blocks the right targets come in the wrong order; None: in all."""

SWAPPED = "untrained prior instead"

LIES = (*BY_SAMPLE, SWAPPED, *PERMUTED)
"""Everything that a participant may answer but the truth."""


def tell(lie: str, run: Played, liar: str, rng: Generator) -> Answers:
    """Return everyone's answers where one participant lies.

    About the shared set, which it knows, it tells the truth.
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
