"""Alignability: a permutation test that keeps noise from being elected or having a vote.

Isotropic noise has the best uniformity of all, but resembles nothing. Two priors are compared by
the debiased linear CKA of their features of the same samples (Kornblith et al. 2019, with the
unbiased HSIC of Song et al. 2012). It fits no map, so a dozen samples are enough. The test is
exact: if the two have nothing in common, every order of the rows is as likely as the true one. Of
each prior it needs only an (S, S) matrix.

Nearly all time is spent on the CKA of random orders of rows. With up to 32 priors each pair has its
own orders. With more, each prior has that many in all, from a seeded sample of its pairs. Pairs can
share orders, because the variance of the CKA over all orders depends only on S.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.targets.alignment import LEAST_ROWS
from coopt_fl.targets.linear import Features, as_matrix, is_constant

_MOST_ROWS = 256

MOST_PAIRED = 32
"""Most priors with which each pair has its own random orders."""

_AT_ONCE = 50

Grams = NDArray[np.float32]
Limits = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Alignability:
    """The evidence on one prior; ``cka`` and ``threshold`` have one entry per other prior.

    Attributes:
        alignable: Whether it resembles at least half of the others.
        cka: Debiased linear CKA with each other prior, at most 1; 0 is expected by chance.
        threshold: The highest CKA of random orders, which ``cka`` has to exceed.
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

    Two priors do if their CKA exceeds that of all ``permutations`` random orders of the rows; by
    chance this happens to one in ``permutations`` + 1 pairs. A prior is alignable if it resembles
    at least half of the others, rounded up; a prior alone always is. At most 256 rows are used;
    with fewer than 7 there are too few orders for any prior to be alignable.

    With more than ``most_paired`` priors, each has about ``permutations`` orders in all, and two
    resemble each other if their CKA exceeds the highest of either's orders. Features are read one
    prior at a time; an (S, S) matrix of each is kept.

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
    """Return the CKA (K, K) of each pair, and the highest (K, K) of its own random orders."""
    rows = grams.shape[1]
    orders = np.array([np.arange(rows), *(rng.permutation(rows) for _ in range(permutations))])
    each = [_ckas(grams, some) for some in np.split(orders, range(_AT_ONCE, len(orders), _AT_ONCE))]
    ckas = np.concatenate(each, axis=2)
    return ckas[:, :, 0], ckas[:, :, 1:].max(axis=2)  # the first order is the true one


def _by_sample(grams: Grams, permutations: int, rng: np.random.Generator) -> Limits:
    """Return the CKA (K, K) of each pair, and the highest (K, K) of either's random orders.

    Each order permutes the rows of one prior, in turn by a random circle, and all others are
    compared with that.
    """
    count = len(grams)
    flat, circle = grams.reshape(count, -1), rng.permutation(count)
    most = np.full(count, -np.inf, np.float32)
    for start in range(0, permutations, _AT_ONCE):
        turns = circle[np.arange(start, min(start + _AT_ONCE, permutations)) % count]
        moved = _moved([(grams[k], rng.permutation(grams.shape[1])) for k in turns])
        reached = flat @ moved.T
        reached[turns, np.arange(len(turns))] = -np.inf  # an order resembles its own rows
        most = np.maximum(most, reached.max(axis=1))
    return flat @ flat.T, np.maximum(most[:, None], most)


def _gram(x: Tensor) -> NDArray[np.float32]:
    """Return the U-centred Gram matrix (S, S), diagonal 0, of norm 1, or all zero if constant."""
    rows = len(x)
    centred = x - x.mean(dim=0)
    if is_constant(centred, x):
        return np.zeros((rows, rows), np.float32)
    centred /= centred.abs().max()
    gram = (centred @ centred.T).fill_diagonal_(0)
    sums = gram.sum(dim=0) / (rows - 2)
    gram += sums.sum() / (rows - 1) - sums - sums[:, None]
    gram.fill_diagonal_(0)
    unit: NDArray[np.float32] = (gram / (gram.norm() or 1.0)).float().numpy()
    return unit


def _ckas(grams: Grams, orders: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the CKA (K, K, orders) of each pair with the rows of one of the two in each order."""
    count = len(grams)
    flat = grams.reshape(count, -1)
    found = np.zeros((count, count, len(orders)), np.float32)
    for k in range(count - 1):
        found[k, k + 1 :] = flat[k + 1 :] @ _moved([(grams[k], order) for order in orders]).T
        found[k + 1 :, k] = found[k, k + 1 :]
    return found


def _moved(those: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]]) -> NDArray[np.float32]:
    """Return Gram matrices (S, S), rows and columns put in the order given, flattened (S S)."""
    rows = len(those[0][1])
    moved = np.empty((len(those), rows, rows), np.float32)
    for (gram, order), one in zip(those, moved, strict=True):
        gram.take(order, 0).take(order, 1, out=one, mode="clip")  # "raise" would copy first
    return moved.reshape(len(those), -1)
