"""The method: from features of the shared set S to everyone's map from features to targets.

CoOpt (arXiv 2505.14117), section 3, and our consensus of priors. The platform, the centralized
baseline and every experiment take its steps from here; the protocol decides on whose device each
one runs, and :mod:`coopt_fl.policies.reference` who is the reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl.core.seeding import derive_seed
from coopt_fl.targets.alignment import Alignment, HeldOut, fit_alignment, held_out
from coopt_fl.targets.linear import Features
from coopt_fl.targets.projection import PCA, consensus_targets, fit_projection

CONSENSUS = "consensus"
"""The reference that is no single prior, but all of them together."""

Array = NDArray[np.float32]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Recipe:
    """How targets are made, see ``targets`` in the configuration.

    Attributes:
        dim: width n of a target.
        projection: how the reference's features become targets.
        solver: how the others are aligned.
        consensus: how the features of all become targets, see :func:`consensus_targets`.
        seed: of the run; every random step derives its own from it.
    """

    dim: int
    projection: str = "pca"
    solver: str = "ridge"
    seed: int = 0
    consensus: str = PCA

    @property
    def rows_to_project(self) -> int:
        """How many samples of its shard the reference's projection is fitted on.

        A PCA needs 2 n of them; twice as many leave room for images that cannot be read.
        """
        return 4 * self.dim

    @property
    def project_seed(self) -> int:
        """The seed of the reference's projection."""
        return derive_seed(self.seed, "project")

    def align_seed(self, name: str) -> int:
        """Return the seed of a participant's alignment."""
        return derive_seed(self.seed, "align", name)

    def project(self, features: Features) -> Alignment:
        """Fit the projection W of the reference's features (R, m) of its shard."""
        return fit_projection(features, self.dim, self.projection, self.project_seed)

    def align(self, name: str, features: Features, wanted: Features) -> Alignment:
        """Fit a participant's features (S, m) of the shared set to the targets (S, n) wanted."""
        return fit_alignment(features, wanted, self.solver, self.align_seed(name))

    def held_out(self, name: str, features: Features, wanted: Features) -> HeldOut:
        """Cross-validate :meth:`align`."""
        return held_out(features, wanted, self.solver, self.align_seed(name))

    def shared_targets(
        self,
        on_s: Mapping[str, Features],
        reference: str,
        accepted: list[str],
        projection: Alignment | None,
    ) -> Array:
        """Return S_Y* (S, n), the targets of the shared set to which everyone is aligned.

        Args:
            on_s: each participant's features (S, m_k).
            reference: a participant's name, or ``CONSENSUS``.
            accepted: the participants in a consensus; not used without one.
            projection: the reference's projection; None for a consensus.
        """
        if projection is None:
            votes = (on_s[name] for name in accepted if name in on_s)
            return consensus_targets(votes, self.dim, self.consensus)
        return apply(projection, on_s[reference])


def apply(alignment: Alignment, features: Features) -> Array:
    """Return the targets (R, n) of features (R, m), both in memory."""
    targets: Array = alignment.on(CPU)(torch.as_tensor(features)).numpy()
    return targets
