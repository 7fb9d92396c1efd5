"""The reference's targets: a projection W of one prior's features, or a consensus of all."""

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.registry import PARTS
from coopt_fl.targets.alignment import Alignment, to_alignment
from coopt_fl.targets.linear import (
    Features,
    as_matrix,
    is_constant,
    principal_axes,
    principal_scores,
    random_orthonormal,
    root_mean_square,
    scores_of_gram,
    smoother,
)

PCA, GCCA = "pca", "gcca"

_RIDGE = (
    10 / 520
)  # of a smoother in "gcca", see docs/decisions/2026-11-30-consensus-by-agreement.md


def fit_projection(features: Features, dim: int, method: str, seed: int) -> Alignment:
    """Fit an affine map from features to targets that are centred and of unit RMS per entry.

    All entries share one scale, because whitened targets train worse students. Use R >= 2 n rows of
    the reference's shard, not S alone, whose rank is too low for a PCA.

    Args:
        features: (R, m) of the reference; the fit is computed on their device.
        dim: Width n of a target.
        method: "pca", "random" (seeded orthonormal), "none" (needs m = n), or a registered one. A
            PCA falls back to "random", with a warning, if R < 2 n.
        seed: Seed of the random projection.

    Raises:
        ConfigError: ``dim`` does not fit the width, or there is no such method.
        PriorError: there are no features, or they are not finite, or all the same.
    """
    x = as_matrix(features, "features")
    if not len(x):
        raise PriorError("there are no features of the reference, so no projection can be fitted")
    rows, width = x.shape
    if method == "pca" and rows < 2 * dim <= 2 * width:
        warnings.warn(
            f"a PCA to {dim} numbers needs {2 * dim} samples and got {rows}: "
            "a random projection is used",
            UserWarning,
            stacklevel=2,
        )
        method = "random"
    mean = x.mean(dim=0)
    found = PARTS.find("projection", method).call(x - mean, dim, seed)
    axes = torch.as_tensor(found).to(x)  # a registered one may return numpy
    if axes.shape != (width, dim):
        raise ConfigError(
            f"targets.projection={method} gave axes of shape {tuple(axes.shape)}, "
            f"not {(width, dim)}"
        )
    if is_constant(x - mean, x):
        raise PriorError(
            "the reference's features are the same for every sample: choose another prior"
        )
    weight = axes / root_mean_square((x - mean) @ axes)
    return to_alignment(weight, -mean @ weight, f"projection:{method}")


def pca(features: Tensor, dim: int, seed: int) -> Tensor:
    """Return the first principal axes (m, dim) of centred features (R, m)."""
    width = features.shape[1]
    if dim > width:
        raise ConfigError(f"targets.dim={dim} is more than the reference's width {width}: lower it")
    return principal_axes(features, dim)


def random(features: Tensor, dim: int, seed: int) -> Tensor:
    """Return seeded random orthonormal axes (m, dim)."""
    seed = derive_seed(seed, "projection")
    return random_orthonormal(features.shape[1], dim, seed, features.device)


def none(features: Tensor, dim: int, seed: int) -> Tensor:
    """Return the axes themselves (m, m)."""
    width = features.shape[1]
    if width != dim:
        raise ConfigError(
            "targets.projection=none needs targets.dim to be the reference's width "
            f"{width}, not {dim}"
        )
    return torch.eye(width, dtype=features.dtype, device=features.device)


def consensus_targets(
    features: Iterable[Features], dim: int, method: str = PCA
) -> NDArray[np.float32]:
    """Return targets (S, dim) of the shared set from the features of all priors.

    Each prior adds an (S, S) matrix, its votes for directions. The targets are the first ``dim``
    principal components of the sum, scaled to unit RMS. Memory holds this sum and the features of
    one prior at a time.

    Args:
        features: (S, m_k) of each prior.
        dim: width n of a target.
        method: what a prior adds. "pca": the inner products of the centred features, divided by
            their RMS norm. All priors have as much to say in sum, in proportion to their variance
            along a direction; one that varies along few has much to say about each.
            "gcca": the smoother of a ridge regression on them, as in the regularised MAXVAR
            generalised canonical correlation analysis (Kettenring 1971). A prior has at most 1 to
            say about a direction, and half of that where 1/52 of its variance lies. So the
            directions that most priors know come first. Unlike there, they keep their weights.

    Raises:
        ConfigError: S < 2 dim, the widths add up to less than ``dim``, or there is no such method.
        PriorError: features are not finite, or all the same, or the numbers of samples differ.
    """
    if method not in (PCA, GCCA):
        raise ConfigError(f"targets.consensus must be {PCA} or {GCCA}, not {method!r}")
    gram: Tensor | None = None
    narrow, rows, width = list[Tensor](), 0, 0
    for one in features:
        x = as_matrix(one, "features")
        centred = x - x.mean(dim=0)
        if is_constant(centred, x):
            raise PriorError(
                "a prior's features are the same for every sample: leave it out of the consensus"
            )
        rows = rows or len(x)
        if len(x) != rows:
            raise PriorError(
                "a consensus needs all priors' features of the same samples, "
                f"not {rows} rows of one and {len(x)} of another"
            )
        width += x.shape[1]
        if method == GCCA:
            votes = smoother(centred, _RIDGE)
        else:
            narrow.append(centred / (root_mean_square(centred) * x.shape[1] ** 0.5))
            if width < rows:
                continue
            wide = torch.cat(narrow, dim=1)
            votes = wide @ wide.T
            narrow.clear()
        gram = votes if gram is None else gram + votes
    if rows < 2 * dim:
        raise ConfigError(
            "reference=consensus needs shared.size of at least 2 x targets.dim = "
            f"{2 * dim}, not {rows}"
        )
    if width < dim:
        raise ConfigError(
            f"targets.dim={dim} is more than all priors' widths together, {width}: lower it"
        )
    if gram is None:
        scores = principal_scores(torch.cat(narrow, dim=1), dim)
    else:
        scores = scores_of_gram(gram, dim)
    targets: NDArray[np.float32] = (scores / root_mean_square(scores)).float().cpu().numpy()
    return targets
