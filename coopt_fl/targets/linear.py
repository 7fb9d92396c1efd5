"""The linear algebra that uniformity, projection and alignment share, in float64."""

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.core.errors import PriorError

Matrix = NDArray[np.float64]
Features = Tensor | NDArray[np.floating]


def as_array(features: Features, what: str) -> NDArray[np.floating]:
    """Return ``features`` as a numpy matrix, without a copy where there is one already.

    Raises:
        PriorError: not two-dimensional.
    """
    if isinstance(features, Tensor):
        features = features.float() if features.dtype is torch.bfloat16 else features
        plain = features.detach().cpu().numpy()
    else:
        plain = features
    if plain.ndim != 2:
        raise PriorError(f"{what} must be a matrix (rows, width), not of shape {plain.shape}")
    return plain


def as_matrix(features: Features, what: str) -> Matrix:
    """Return ``features`` as a float64 matrix.

    Raises:
        PriorError: not a matrix, or an entry is not finite (in float32, as features travel).
    """
    plain = as_array(features, what)
    with np.errstate(over="ignore"):
        finite = np.isfinite(plain.astype(np.float32, copy=False)).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise PriorError(f"{what} are not finite in row {row}: the prior cannot be used as it is")
    return plain.astype(np.float64)


def random_orthonormal(m: int, n: int, seed: int) -> Matrix:
    """Return a uniformly random (m, n) matrix with orthonormal columns (rows if m < n)."""
    rng = np.random.default_rng(seed)
    q, r = np.linalg.qr(rng.standard_normal((max(m, n), min(m, n))))
    basis: Matrix = q * np.sign(np.diagonal(r))
    return basis if m >= n else basis.T


def principal_axes(x: Matrix, dim: int) -> Matrix:
    """Return the first ``dim`` principal axes (m, dim) of centred ``x`` (R, m), strongest first.

    The largest entry of each axis is positive, for eigenvectors have no sign of their own.
    """
    _, axes = _top_eigh(x.T @ x, dim)
    return axes


def principal_scores(x: Matrix, dim: int) -> Matrix:
    """Return centred ``x`` (R, m) in its first ``dim`` <= min(R, m) principal axes: (R, dim)."""
    if len(x) > x.shape[1]:
        return x @ principal_axes(x, dim)
    values, vectors = _top_eigh(x @ x.T, dim)
    scores: Matrix = vectors * np.sqrt(values.clip(min=0))
    return scores


def root_mean_square(x: Matrix) -> float:
    """Return the root of the mean square entry."""
    return float(np.sqrt(np.mean(x * x)))


def is_constant(centred: Matrix, x: Matrix) -> bool:
    """Whether centring ``x`` left nothing but rounding, which must not be taken for a signal."""
    largest = float(np.abs(x).max(initial=0.0))
    return float(np.abs(centred).max(initial=0.0)) <= 1e-12 * largest


def _top_eigh(gram: Matrix, dim: int) -> tuple[Matrix, Matrix]:
    size = len(gram)
    values, vectors = scipy.linalg.eigh(gram, subset_by_index=(size - dim, size - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    peaks = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    return values, vectors * np.where(peaks < 0, -1.0, 1.0)
