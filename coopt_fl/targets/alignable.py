"""Which priors see what the others see: noise must neither be elected nor have a vote.

Isotropic noise has the best uniformity of all, but resembles nothing. Two priors are compared by
the debiased linear CKA of their features of the same samples (Kornblith et al. 2019, with the
unbiased HSIC of Song et al. 2012), which asks no map to be fitted, so that a dozen samples are
enough. The test is exact: if the two have nothing in common, every order of the rows is as likely
as the true one. All that it needs of a prior is an (S, S) matrix.

What chance reaches is looked for in random orders, which is all that is slow. Up to 32 priors each
pair has its own orders. Beyond, each prior has as many in all, taken from a seeded sample of its
pairs. The variance of the CKA over all orders depends on nothing but S, so pairs can share them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.targets.alignment import LEAST_ROWS
from coopt_fl.targets.linear import Features, Matrix, as_matrix, is_constant

_MOST_ROWS = 256

MOST_PAIRED = 32
"""Priors up to which chance is looked for in each pair."""

_AT_ONCE = 50

Grams = NDArray[np.float32]
Limits = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Alignability:
    """The evidence on one prior; ``cka`` and ``threshold`` have one entry per other prior.

    Attributes:
        alignable: Resembles at least half of the others.
        cka: Debiased linear CKA with the other, at most 1; 0 is chance.
        threshold: What that CKA has to exceed: the most that chance reached.
    """

    alignable: bool
    cka: tuple[float, ...]
    threshold: tuple[float, ...]


def alignability(
    features: Collection[Features],
    seed: int = 0,
    permutations: int = 1999,
    most_paired: int = MOST_PAIRED,
) -> list[Alignability]:
    """Test of each prior whether its features (S, m_k) resemble the others'.

    Two priors do if their CKA exceeds that of all ``permutations`` random orders of the rows, which
    chance does once in ``permutations`` + 1 pairs. A prior is alignable if it resembles at least
    half of the others, rounded up; a prior alone always is. At most 256 rows are used; with fewer
    than 7 there are too few orders for any prior to be alignable.

    Of more than ``most_paired`` priors each has about ``permutations`` orders in all, and two
    resemble each other if their CKA exceeds what either reached in those. Features are looked at
    one after another, and (S, S) numbers of each are kept.

    Raises:
        ConfigError: fewer than 4 rows.
        PriorError: a feature is not finite, or the priors' rows do not correspond.
    """
    grams = _grams(features, seed)
    rng = np.random.default_rng(derive_seed(seed, "alignable", "orders"))
    if len(grams) > most_paired:
        ckas, limits = _by_sample(grams, permutations, rng)
    else:
        ckas, limits = _by_pair(grams, permutations, rng)
    found = []
    for k, (each, limit) in enumerate(zip(ckas, limits, strict=True)):
        cka, most = np.delete(each, k), np.delete(limit, k)
        alike = int((cka > most).sum()) >= (len(cka) + 1) // 2
        found.append(Alignability(alike, tuple(cka.tolist()), tuple(most.tolist())))
    return found


def _grams(features: Collection[Features], seed: int) -> Grams:
    """Return the Gram matrix (K, S, S) of each prior's features of the same rows."""
    grams, used, rows = np.empty((0, 0, 0), np.float32), np.empty(0, int), 0
    for k, one in enumerate(features):
        x = as_matrix(one, "features")
        if k == 0:
            rows = len(x)
            rng = np.random.default_rng(derive_seed(seed, "alignable", "rows"))
            used = np.sort(rng.permutation(rows)[:_MOST_ROWS])
            grams = np.empty((len(features), len(used), len(used)), np.float32)
        if len(x) != rows:
            raise PriorError(
                f"all priors must be given for the same samples, not for {rows} and {len(x)}"
            )
        if rows < LEAST_ROWS:
            raise ConfigError(f"shared.size must be at least {LEAST_ROWS}, not {rows}")
        grams[k] = _gram(x[used])
    return grams


def _by_pair(grams: Grams, permutations: int, rng: np.random.Generator) -> Limits:
    """Return the CKA (K, K) of each pair, and the most (K, K) that its own orders reached."""
    rows = grams.shape[1]
    orders = np.array([np.arange(rows), *(rng.permutation(rows) for _ in range(permutations))])
    each = [_ckas(grams, some) for some in np.split(orders, range(_AT_ONCE, len(orders), _AT_ONCE))]
    ckas = np.concatenate(each, axis=2)
    return ckas[:, :, 0], ckas[:, :, 1:].max(axis=2)  # the first order is the true one


def _by_sample(grams: Grams, permutations: int, rng: np.random.Generator) -> Limits:
    """Return the CKA (K, K) of each pair, and the most (K, K) that either reached by chance.

    The priors stand in a random circle. Every order is of the next one's rows, and everyone else
    is compared with that.
    """
    count = len(grams)
    flat, circle = grams.reshape(count, -1), rng.permutation(count)
    most = np.full(count, -np.inf, np.float32)
    for start in range(0, permutations, _AT_ONCE):
        turns = circle[np.arange(start, min(start + _AT_ONCE, permutations)) % count]
        moved = _moved([(grams[k], rng.permutation(grams.shape[1])) for k in turns])
        reached = flat @ moved.T
        reached[turns, np.arange(len(turns))] = -np.inf  # of its own rows it knows too much
        most = np.maximum(most, reached.max(axis=1))
    return flat @ flat.T, np.maximum(most[:, None], most)


def _gram(x: Matrix) -> NDArray[np.float32]:
    """Return the inner products (S, S) of different rows, U-centred, of norm 1, or all zero."""
    rows = len(x)
    centred = x - x.mean(axis=0)
    if is_constant(centred, x):
        return np.zeros((rows, rows), np.float32)
    centred /= np.abs(centred).max()
    gram = centred @ centred.T
    np.fill_diagonal(gram, 0)
    sums = gram.sum(axis=0) / (rows - 2)
    gram += sums.sum() / (rows - 1) - sums - sums[:, None]
    np.fill_diagonal(gram, 0)
    unit: NDArray[np.float32] = (gram / (np.linalg.norm(gram) or 1.0)).astype(np.float32)
    return unit


def _ckas(grams: Grams, orders: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return (K, K, orders): the CKA of each pair, the rows of one of the two in that order."""
    count = len(grams)
    flat = grams.reshape(count, -1)
    found = np.zeros((count, count, len(orders)), np.float32)
    for k in range(count - 1):
        found[k, k + 1 :] = flat[k + 1 :] @ _moved([(grams[k], order) for order in orders]).T
        found[k + 1 :, k] = found[k, k + 1 :]
    return found


def _moved(those: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]]) -> NDArray[np.float32]:
    """Return each Gram matrix (S, S) with its rows and columns in an order, as rows (S S)."""
    return np.stack([gram[order][:, order].ravel() for gram, order in those])
