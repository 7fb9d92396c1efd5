"""Whitening: targets whose directions all have the same variance."""

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl.targets.alignment import Alignment, to_alignment
from coopt_fl.targets.linear import as_matrix

FAINTEST = 1e-6
"""Directions with less than this share of the largest variance count as rounding."""

_CHUNK = 65_536


def fit_whitening(targets: NDArray[np.float16], device: torch.device) -> Alignment:
    """Fit the affine map that makes targets (N, n) uncorrelated, centred and of unit variance.

    Directions without variance become 0. In targets of priors that have learned little, a few
    directions such as brightness outweigh all others and dominate the cosine. The fit is computed
    on ``device``, to which the targets go in chunks.

    Raises:
        PriorError: an entry is not finite.
    """
    width = targets.shape[1]
    total = torch.zeros(width, dtype=torch.float64, device=device)
    moments = torch.zeros(width, width, dtype=torch.float64, device=device)
    for start in range(0, len(targets), _CHUNK):
        part = as_matrix(torch.tensor(targets[start : start + _CHUNK], device=device), "targets")
        total += part.sum(dim=0)
        moments += part.T @ part
    mean = total / len(targets)
    variances, axes = torch.linalg.eigh(moments / len(targets) - mean.outer(mean))
    kept = variances > FAINTEST * variances[-1]
    weight = axes * torch.where(kept, variances.rsqrt(), 0.0)
    return to_alignment(weight, -mean @ weight, "whitening")
