"""How evenly a prior spreads the shared set over the sphere (Wang & Isola 2020, eq. 2)."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from coopt_fl.core.errors import ConfigError
from coopt_fl.targets.linear import Features, as_matrix


def uniformity(features: Features, tau: float = 2.0, block: int = 1024) -> float:
    """Return log E_{i != j} exp(-tau ||x_i - x_j||^2), rows L2-normalised; lower is better.

    The minus sign is Wang & Isola's; without it "lower is better" (CoOpt, section 3.2) would
    reward collapse. Pairs are visited in blocks: O(block^2 + block m) memory beyond the features.

    Args:
        features: (S, m), S >= 2; a row of zeros stays zero.
        tau: Inverse squared distance, > 0.
        block: Rows per block.

    Raises:
        ConfigError: fewer than two rows.
        PriorError: a feature is not finite.
    """
    rows = len(features)
    if rows < 2:
        raise ConfigError(f"uniformity needs at least 2 shared samples, not {rows}")
    total = torch.tensor(-math.inf, dtype=torch.float64)
    for start in range(0, rows, block):
        left = _unit_rows(features[start : start + block])
        total = torch.logaddexp(total, _log_sum(left, left, tau, same=True))
        for other in range(start + block, rows, block):
            right = _unit_rows(features[other : other + block])
            total = torch.logaddexp(total, _log_sum(left, right, tau, same=False))
    return float(total) - math.log(rows * (rows - 1) / 2)


def _unit_rows(features: Features) -> Tensor:
    x = as_matrix(features, "features")
    tiny = torch.finfo(torch.float64).tiny
    return F.normalize(x / x.abs().amax(dim=1, keepdim=True).clamp_min(tiny), eps=tiny)


def _log_sum(left: Tensor, right: Tensor, tau: float, same: bool) -> Tensor:
    """Return log sum exp(-tau d^2) over the pairs of two blocks, or the pairs i < j of one."""
    squares = left.square().sum(dim=1)[:, None] + right.square().sum(dim=1)
    exponents = -tau * (squares - 2 * left @ right.T).clamp_min(0)
    if same:
        exponents = exponents[torch.ones_like(exponents, dtype=torch.bool).triu(1)]
    return exponents.flatten().logsumexp(dim=0)
