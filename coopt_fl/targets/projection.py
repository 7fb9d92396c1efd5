"""W: how the reference's features become targets."""

import warnings

import numpy as np

from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.targets.alignment import Alignment
from coopt_fl.targets.linear import (
    Features,
    Matrix,
    as_matrix,
    is_constant,
    principal_axes,
    random_orthonormal,
    root_mean_square,
)


def fit_projection(features: Features, dim: int, method: str, seed: int) -> Alignment:
    """Fit an affine map from features to targets that are centred and of unit RMS per entry.

    Only one scale for all entries: whitened targets train worse students. Fitted on R >= 2 n rows
    of the reference's shard, not on S alone, whose rank is too low for a PCA.

    Args:
        features: (R, m) of the reference.
        dim: Width n of a target.
        method: "pca", "random" (seeded orthonormal) or "none" (needs m = n). A PCA falls back to
            "random", with a warning, where R < 2 n.
        seed: Of the random projection.

    Raises:
        ConfigError: ``dim`` does not fit the width, or no such method.
        PriorError: features that are not finite, or all the same.
    """
    x = as_matrix(features, "features")
    if not len(x):
        raise PriorError("no features of the reference came, so no projection can be fitted")
    mean = x.mean(axis=0)
    method = _feasible(method, x.shape, dim)
    axes = _axes(x - mean, dim, method, seed)
    if is_constant(x - mean, x):
        raise PriorError(
            "the reference's features are the same for every sample: choose another prior"
        )
    weight = axes / root_mean_square((x - mean) @ axes)
    bias = -mean @ weight
    return Alignment(weight.astype(np.float32), bias.astype(np.float32), f"projection:{method}")


def _feasible(method: str, shape: tuple[int, int], dim: int) -> str:
    """Return ``method``, or "random" with a warning where the rows are too few for a PCA."""
    rows, width = shape
    if method != "pca" or rows >= 2 * dim or dim > width:
        return method
    warnings.warn(
        f"a PCA to {dim} numbers needs {2 * dim} samples and got {rows}: "
        "a random projection is used",
        UserWarning,
        stacklevel=3,
    )
    return "random"


def _axes(x: Matrix, dim: int, method: str, seed: int) -> Matrix:
    """Return orthonormal axes (m, dim)."""
    width = x.shape[1]
    if method == "none":
        if width != dim:
            raise ConfigError(
                "targets.projection=none needs targets.dim to be the reference's width "
                f"{width}, not {dim}"
            )
        return np.eye(width)
    if method == "random":
        return random_orthonormal(width, dim, derive_seed(seed, "projection"))
    if method != "pca":
        raise ConfigError(f"targets.projection is one of pca, random, none, not {method!r}")
    if dim > width:
        raise ConfigError(f"targets.dim={dim} is more than the reference's width {width}: lower it")
    return principal_axes(x, dim)
