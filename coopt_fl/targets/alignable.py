"""Which priors see what the others see: noise must neither be elected nor have a vote.

Isotropic noise has the best uniformity of all, but nothing predicts it. A prior is judged by the
R2 of its features predicted, on rows held out, from another prior's by ridge regression in its
dual form. All R2 needs of the two priors are (S, S) matrices, so permuting rows costs O(S^2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from coopt_fl.errors import ConfigError, PriorError
from coopt_fl.seeding import derive_seed
from coopt_fl.targets.alignment import LEAST_ROWS, folds
from coopt_fl.targets.linear import Features, Matrix, as_matrix, is_constant

_MOST_ROWS = 500
_STRENGTH = 0.3  # of the ridge, relative to a row's mean square norm
_SPREADS = 4.0  # above chance: noise gets there once in some thousands, a prior at S = 25 already


@dataclass(frozen=True)
class Alignability:
    """The evidence on one prior; ``r2`` and ``threshold`` have one entry per other prior.

    Attributes:
        alignable: Predicted from at least half of the others.
        r2: Held-out R2 of its features predicted from the other's.
        threshold: What that R2 has to exceed: all that chance reached, and by a margin.
    """

    alignable: bool
    r2: tuple[float, ...]
    threshold: tuple[float, ...]


def alignability(
    features: Sequence[Features], seed: int = 0, permutations: int = 50
) -> list[Alignability]:
    """Test of each prior whether the others predict its features (S, m_k).

    A prediction counts if its held-out R2 exceeds the largest one among ``permutations``
    permutations of the rows, and their mean by 4 standard deviations: the largest alone would let
    noise pass once in ``permutations`` pairs. A prior is alignable if at least half of the others,
    rounded up, predict it; a prior alone always is. At most 500 rows are used; below some 20
    nothing can be told from chance, and no prior is alignable.

    Raises:
        ConfigError: fewer than 4 rows.
        PriorError: a feature is not finite, or the priors' rows do not correspond.
    """
    grams = [_gram(one) for one in _comparable(features, seed)]
    losses = [_heldout_loss(gram, seed) for gram in grams] if len(grams) > 1 else []
    orders = _orders(len(grams[0]), permutations, seed)
    return [
        _judge(_r2s([loss for j, loss in enumerate(losses) if j != k], gram, orders))
        for k, gram in enumerate(grams)
    ]


def _comparable(features: Sequence[Features], seed: int) -> list[Matrix]:
    """Return the same, at most 500, rows of every prior."""
    plain = [as_matrix(one, "features") for one in features]
    counts = sorted({len(one) for one in plain})
    if len(counts) != 1:
        raise PriorError(f"all priors must be given for the same samples, not for {counts} rows")
    if counts[0] < LEAST_ROWS:
        raise ConfigError(f"shared.size must be at least {LEAST_ROWS}, not {counts[0]}")
    rng = np.random.default_rng(derive_seed(seed, "alignable", "rows"))
    rows = np.sort(rng.permutation(counts[0])[:_MOST_ROWS])
    return [one[rows] for one in plain]


def _gram(x: Matrix) -> Matrix:
    """Return the inner products (S, S) of the centred rows, scaled to a trace of S (or zero)."""
    centred = x - x.mean(axis=0)
    if is_constant(centred, x):
        return np.zeros((len(x), len(x)))
    centred /= np.abs(centred).max()
    gram: Matrix = centred @ centred.T
    gram *= len(x) / np.trace(gram)
    return gram


def _orders(rows: int, permutations: int, seed: int) -> list[NDArray[np.int64]]:
    """Return the true order and ``permutations`` seeded ones."""
    rng = np.random.default_rng(derive_seed(seed, "alignable", "orders"))
    return [np.arange(rows), *(rng.permutation(rows) for _ in range(permutations))]


def _heldout_loss(gram: Matrix, seed: int) -> Matrix:
    """Return M (S, S): predicting any y (S, p) from this prior leaves the residual tr(y' M y)."""
    residual = np.eye(len(gram))
    for fold in folds(len(gram), seed):
        kept = np.delete(np.arange(len(gram)), fold)
        residual[np.ix_(fold, kept)] -= _ridge_map(
            gram[np.ix_(fold, kept)], gram[np.ix_(kept, kept)]
        )
    return residual.T @ residual


def _ridge_map(across: Matrix, within: Matrix) -> Matrix:
    """Return the (held-out, kept) matrix that turns kept targets into predictions."""
    rows = len(within)
    means = within.mean(axis=0)
    within = within - means - means[:, None] + means.mean()
    across = across - across.mean(axis=1, keepdims=True) - means + means.mean()
    strength = _STRENGTH * max(float(np.trace(within)) / rows, np.finfo(np.float64).eps)
    damped = within + strength * np.eye(rows)
    smoother: Matrix = scipy.linalg.solve(damped, across.T, assume_a="pos").T
    smoother += 1.0 / rows - smoother.mean(axis=1, keepdims=True)
    return smoother


def _r2s(losses: list[Matrix], gram: Matrix, orders: list[NDArray[np.int64]]) -> Matrix:
    """Return (others, orders): the held-out R2 of the prior with ``gram``; 0 if it is constant."""
    variance = float(np.trace(gram))
    if variance == 0 or not losses:
        return np.zeros((len(losses), len(orders)))
    left = []
    for order in orders:
        permuted = gram[order][:, order]
        left.append([float(np.vdot(loss, permuted)) for loss in losses])
    shares: Matrix = np.array(left, np.float64).T / variance
    return 1 - shares


def _judge(r2s: Matrix) -> Alignability:
    """Judge one prior by its R2 from every other, a row each, the true order first."""
    true, chance = r2s[:, 0], r2s[:, 1:]
    limit = np.maximum(chance.max(axis=1), chance.mean(axis=1) + _SPREADS * chance.std(axis=1))
    predicted = int((true > limit).sum())
    return Alignability(
        predicted >= (len(r2s) + 1) // 2, tuple(true.tolist()), tuple(limit.tolist())
    )
