"""A reference made of all priors: the principal components of their features together."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.targets.linear import (
    Features,
    Matrix,
    as_matrix,
    is_constant,
    principal_scores,
    root_mean_square,
)


def consensus_targets(features: Sequence[Features], dim: int) -> NDArray[np.float32]:
    """Return targets (S, dim) of the shared set that all priors have a part in.

    Each prior's features (S, m_k) are centred and divided by their RMS norm, so that each prior
    has one vote, and concatenated; the first ``dim`` principal components are scaled to unit RMS.

    Raises:
        ConfigError: S < 2 dim, or all widths together are less than ``dim``.
        PriorError: features that are not finite, all the same, or of different samples.
    """
    votes = [_vote(as_matrix(one, "features")) for one in features]
    if len({len(vote) for vote in votes}) != 1:
        counts = [len(vote) for vote in votes]
        raise PriorError(
            f"a consensus needs all priors' features of the same samples, not {counts} rows"
        )
    rows, width = len(votes[0]), sum(vote.shape[1] for vote in votes)
    if rows < 2 * dim:
        raise ConfigError(
            "reference=consensus needs shared.size of at least 2 x targets.dim = "
            f"{2 * dim}, not {rows}"
        )
    if width < dim:
        raise ConfigError(
            f"targets.dim={dim} is more than all priors' widths together, {width}: lower it"
        )
    scores = principal_scores(np.concatenate(votes, axis=1), dim)
    return (scores / root_mean_square(scores)).astype(np.float32)


def _vote(x: Matrix) -> Matrix:
    centred = x - x.mean(axis=0)
    if is_constant(centred, x):
        raise PriorError(
            "a prior's features are the same for every sample: leave it out of the consensus"
        )
    vote: Matrix = centred / (root_mean_square(centred) * x.shape[1] ** 0.5)
    return vote
