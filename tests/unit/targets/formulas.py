"""Reference implementations of the fits, in numpy and scipy, by the formulas of the papers."""

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Affine = tuple[Matrix, Matrix]


def ridge(source: Matrix, target: Matrix) -> Affine:
    """Hoerl and Kennard 1970, in the dual form; the strength by Golub et al. 1979."""
    x, y = source - source.mean(axis=0), target - target.mean(axis=0)
    rows, width = x.shape
    left, strengths, right = scipy.linalg.svd(x, full_matrices=False)
    spanned = strengths > strengths[0] * max(rows, width) * np.finfo(float).eps
    left, strengths, right = left[:, spanned], strengths[spanned], right[spanned]
    values, moments = strengths**2, left.T @ y
    unspanned = ((y - left @ moments) ** 2).sum()
    tried = values[0] * np.logspace(-10, 3, 53)
    scores = []
    for strength in tried:
        shrink = strength / (values + strength)
        residual = unspanned + shrink**2 @ (moments**2).sum(axis=1)
        scores.append(residual / (rows - 1 - (1 - shrink).sum()) ** 2)
    best = tried[int(np.argmin(scores))]
    weight = right.T @ ((strengths / (values + best))[:, None] * moments)
    return weight, target.mean(axis=0) - source.mean(axis=0) @ weight


def lstsq(source: Matrix, target: Matrix) -> Affine:
    """The least-squares solution of minimum norm."""
    x, y = source - source.mean(axis=0), target - target.mean(axis=0)
    weight = scipy.linalg.lstsq(x, y, cond=max(x.shape) * np.finfo(float).eps)[0]
    return weight, target.mean(axis=0) - source.mean(axis=0) @ weight


def procrustes(source: Matrix, target: Matrix) -> Affine:
    """Schoenemann 1966 and Carroll 1970, in the span of the shared set."""
    x, y = source - source.mean(axis=0), target - target.mean(axis=0)
    left, strengths, right = scipy.linalg.svd(x.T @ y, full_matrices=False)
    known = strengths > strengths[0] * max(x.shape) * np.finfo(np.float32).eps
    rotation = left[:, known] @ right[known]
    weight = rotation * (((x @ rotation) * y).sum() / ((x @ rotation) ** 2).sum())
    return weight, target.mean(axis=0) - source.mean(axis=0) @ weight


def principal_axes(x: Matrix, dim: int) -> Matrix:
    """Principal axes of centred x (R, m), strongest first; each one's largest entry is positive."""
    size = x.shape[1]
    axes = scipy.linalg.eigh(x.T @ x, subset_by_index=(size - dim, size - 1))[1][:, ::-1]
    peaks = axes[np.abs(axes).argmax(axis=0), np.arange(dim)]
    return axes * np.sign(peaks)


def projection(features: Matrix, dim: int) -> Affine:
    """The first principal components at one scale, of unit RMS."""
    mean = features.mean(axis=0)
    axes = principal_axes(features - mean, dim)
    weight = axes / np.sqrt(np.mean(((features - mean) @ axes) ** 2))
    return weight, -mean @ weight


def whitening(targets: Matrix, faintest: float) -> Affine:
    """PCA whitening without directions of too little variance."""
    variances, axes = scipy.linalg.eigh(np.cov(targets.T, bias=True))
    kept = variances > faintest * variances[-1]
    weight = np.zeros_like(axes)
    weight[:, kept] = axes[:, kept] / np.sqrt(variances[kept])
    return weight, -targets.mean(axis=0) @ weight
