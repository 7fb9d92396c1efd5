"""Which priors see what the others see: noise must neither be elected nor have a vote.

Isotropic noise has the best uniformity of all, but resembles nothing. Two priors are compared by
the debiased linear CKA of their features of the same samples (Kornblith et al. 2019, with the
unbiased HSIC of Song et al. 2012), which asks no map to be fitted, so that a dozen samples are
enough. The test is exact: if the two have nothing in common, every order of the rows is as likely
as the true one. All that it needs of a prior is an (S, S) matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.targets.alignment import LEAST_ROWS
from coopt_fl.targets.linear import Features, as_matrix, is_constant

_MOST_ROWS = 256


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
    features: Sequence[Features], seed: int = 0, permutations: int = 1999
) -> list[Alignability]:
    """Test of each prior whether its features (S, m_k) resemble the others'.

    Two priors do if their CKA exceeds that of all ``permutations`` random orders of the rows, which
    chance does once in ``permutations`` + 1 pairs. A prior is alignable if it resembles at least
    half of the others, rounded up; a prior alone always is. At most 256 rows are used; with fewer
    than 7 there are too few orders for any prior to be alignable.

    Raises:
        ConfigError: fewer than 4 rows.
        PriorError: a feature is not finite, or the priors' rows do not correspond.
    """
    plain = [as_matrix(one, "features") for one in features]
    counts = sorted({len(one) for one in plain})
    if len(counts) != 1:
        raise PriorError(f"all priors must be given for the same samples, not for {counts} rows")
    if counts[0] < LEAST_ROWS:
        raise ConfigError(f"shared.size must be at least {LEAST_ROWS}, not {counts[0]}")
    rng = np.random.default_rng(derive_seed(seed, "alignable", "rows"))
    used = np.sort(rng.permutation(counts[0])[:_MOST_ROWS])
    grams = np.stack([_gram(one[used]) for one in plain])
    rng = np.random.default_rng(derive_seed(seed, "alignable", "orders"))
    rows = len(used)
    orders = np.array([np.arange(rows), *(rng.permutation(rows) for _ in range(permutations))])
    ckas = np.concatenate(
        [_ckas(grams, some) for some in np.split(orders, range(50, len(orders), 50))], axis=2
    )
    found = []
    for k, each in enumerate(ckas):
        others = np.delete(each, k, axis=0)
        cka, limit = others[:, 0], others[:, 1:].max(axis=1)  # the first order is the true one
        alike = int((cka > limit).sum()) >= (len(others) + 1) // 2
        found.append(Alignability(alike, tuple(cka.tolist()), tuple(limit.tolist())))
    return found


def _gram(x: Tensor) -> NDArray[np.float32]:
    """Return the inner products (S, S) of different rows, U-centred, of norm 1, or all zero."""
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


def _ckas(grams: NDArray[np.float32], orders: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return (K, K, orders): the CKA of each pair, the rows of one of the two in that order."""
    count, rows, _ = grams.shape
    flat = grams.reshape(count, rows * rows)
    places = (orders[:, :, None] * rows + orders[:, None]).reshape(len(orders), -1)
    found = np.zeros((count, count, len(orders)), np.float32)
    for k in range(count - 1):
        found[k, k + 1 :] = flat[k + 1 :] @ flat[k][places].T
        found[k + 1 :, k] = found[k, k + 1 :]
    return found
