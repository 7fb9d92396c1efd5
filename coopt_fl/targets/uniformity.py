"""How evenly a prior spreads the shared set over the sphere (Wang & Isola 2020, eq. 2)."""

import numpy as np

from coopt_fl.core.errors import ConfigError
from coopt_fl.targets.linear import Features, Matrix, as_array, as_matrix


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
    plain = as_array(features, "features")
    rows = len(plain)
    if rows < 2:
        raise ConfigError(f"uniformity needs at least 2 shared samples, not {rows}")
    total = -np.inf
    for start in range(0, rows, block):
        left = _unit_rows(plain[start : start + block])
        total = np.logaddexp(total, _log_sum(left, left, tau, same=True))
        for other in range(start + block, rows, block):
            right = _unit_rows(plain[other : other + block])
            total = np.logaddexp(total, _log_sum(left, right, tau, same=False))
    return float(total - np.log(rows * (rows - 1) / 2))


def _unit_rows(features: Features) -> Matrix:
    x = as_matrix(features, "features")
    x /= np.abs(x).max(axis=1, keepdims=True, initial=np.finfo(np.float64).tiny)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1.0)


def _log_sum(left: Matrix, right: Matrix, tau: float, same: bool) -> float:
    """Return log sum exp(-tau d^2) over the pairs of two blocks, or the pairs i < j of one."""
    squares = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1)
    exponents = -tau * (squares - 2 * left @ right.T).clip(min=0)
    if same:
        exponents = exponents[np.triu_indices(len(left), k=1)]
    if not exponents.size:
        return -np.inf
    peak = exponents.max()
    return float(peak + np.log(np.exp(exponents - peak).sum()))
