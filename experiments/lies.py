"""Lies about targets: everything that a participant of ``audit`` may answer but the truth."""

from collections.abc import Callable

import numpy as np

from experiments.agreement import Array
from experiments.played import Answers, Played

Generator = np.random.Generator


def _shuffled(y: Array, rng: Generator) -> Array:
    return y[rng.permutation(len(y))]


def _partly(y: Array, rng: Generator, share: float) -> Array:
    wrong = rng.random(len(y)) < share
    return np.where(wrong[:, None], _shuffled(y, rng), y)


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
    "targets of other samples": lambda y, other, rng: _shuffled(y, rng),
    "half of other samples": lambda y, other, rng: _partly(y, rng, 0.5),
    "a tenth of other samples": lambda y, other, rng: _partly(y, rng, 0.1),
    "another's, of other samples": lambda y, other, rng: _shuffled(other, rng),
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
