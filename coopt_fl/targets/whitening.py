"""Targets whose directions all have the same weight."""

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from coopt_fl.targets.alignment import Alignment
from coopt_fl.targets.linear import as_matrix

FAINTEST = 1e-6
"""Part of the strongest direction's variance below which a direction is rounding."""

_CHUNK = 65_536


def fit_whitening(targets: NDArray[np.float16]) -> Alignment:
    """Fit the affine map that makes targets (N, n) uncorrelated, centred and of unit variance.

    Directions without variance become 0. In targets of priors that have learned little, a few
    directions such as brightness outweigh all others; the cosine sees nothing else.

    Raises:
        PriorError: an entry is not finite.
    """
    total, moments = np.zeros(targets.shape[1]), np.zeros((targets.shape[1],) * 2)
    for start in range(0, len(targets), _CHUNK):
        part = as_matrix(targets[start : start + _CHUNK], "targets")
        total += part.sum(axis=0)
        moments += part.T @ part
    mean = total / len(targets)
    variances, axes = scipy.linalg.eigh(moments / len(targets) - np.outer(mean, mean))
    kept = variances > FAINTEST * variances[-1]
    weight = axes * np.where(kept, 1 / np.sqrt(np.where(kept, variances, 1)), 0)
    return Alignment(weight.astype(np.float32), (-mean @ weight).astype(np.float32), "whitening")
