"""Linear algebra for projection and alignment: float64, on the device of the features.

Only :func:`as_matrix`, which checks its input, synchronizes with the device.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.core.errors import PriorError

Features = Tensor | NDArray[np.floating]
"""Tensors are computed on their own device, arrays on the CPU."""


def as_matrix(features: Features, what: str) -> Tensor:
    """Return a copy of ``features`` as a contiguous float64 matrix on the same device.

    It is always contiguous, because the last bits of a product depend on the memory layout.

    Raises:
        PriorError: it is not a matrix, or an entry is not finite in float32, in which it is sent.
    """
    given = features.detach() if isinstance(features, Tensor) else torch.tensor(features)
    if given.ndim != 2:
        raise PriorError(f"{what} must be a matrix (rows, width), not of {tuple(given.shape)}")
    finite = given.float().isfinite().all(dim=1)
    if not finite.all():
        row = int(finite.int().argmin())
        raise PriorError(f"{what} are not finite in row {row}: the prior cannot be used as it is")
    return given.to(torch.float64, copy=True, memory_format=torch.contiguous_format)


def random_orthonormal(m: int, n: int, seed: int, device: torch.device) -> Tensor:
    """Return a uniformly random (m, n) matrix with orthonormal columns (rows if m < n).

    It is drawn on the CPU, so that it is the same on every device up to rounding.
    """
    drawn = np.random.default_rng(seed).standard_normal((max(m, n), min(m, n)))
    q, r = torch.linalg.qr(torch.tensor(drawn, device=device))
    basis: Tensor = q * r.diagonal().sign()
    return basis if m >= n else basis.T


def principal_axes(x: Tensor, dim: int) -> Tensor:
    """Return the first ``dim`` <= R principal axes (m, dim) of centred ``x`` (R, m), in order.

    The largest entry of each axis is positive, because the sign of an eigenvector is arbitrary.
    """
    if len(x) < x.shape[1]:  # most of (m, m) would be null space
        return _signed(torch.linalg.svd(x, full_matrices=False).Vh[:dim].T)
    _, axes = _top_eigh(x.T @ x, dim)
    return axes


def principal_scores(x: Tensor, dim: int) -> Tensor:
    """Return the scores (R, dim) of centred ``x`` (R, m) on its first ``dim`` principal axes."""
    if len(x) > x.shape[1]:
        return x @ principal_axes(x, dim)
    return scores_of_gram(x @ x.T, dim)


def scores_of_gram(gram: Tensor, dim: int) -> Tensor:
    """Return the principal scores (R, dim) of rows whose inner products (R, R) are ``gram``."""
    values, vectors = _top_eigh(gram, dim)
    return vectors * values.clamp_min(0).sqrt()


def smoother(x: Tensor, ridge: float) -> Tensor:
    """Return the matrix (R, R) of a ridge regression on centred ``x`` (R, m).

    It maps any R values to their fitted ones. The penalty is ``ridge`` times the sum of the
    eigenvalues of ``x @ x.T``, so neither the scale of ``x`` nor the number of rows matters.
    """
    gram = x @ x.T
    penalty, one = ridge * gram.trace(), torch.eye(len(x)).to(x)
    return one - penalty * torch.cholesky_inverse(torch.linalg.cholesky(gram + penalty * one))


def root_mean_square(x: Tensor) -> Tensor:
    """Return the root mean square of all entries, a scalar."""
    return x.square().mean().sqrt()


def is_constant(centred: Tensor, x: Tensor) -> Tensor:
    """Whether centring ``x`` left nothing but rounding, which must not be taken for a signal."""
    return centred.abs().max() <= 1e-12 * x.abs().max()


def _top_eigh(gram: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the ``dim`` largest eigenvalues, descending, and their eigenvectors."""
    values, vectors = torch.linalg.eigh(gram)
    return values[-dim:].flip(0), _signed(vectors[:, -dim:].flip(1))


def _signed(vectors: Tensor) -> Tensor:
    """Return the columns, each with the sign that makes its largest entry positive."""
    peaks = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return vectors * torch.where(peaks < 0, -1.0, 1.0)
