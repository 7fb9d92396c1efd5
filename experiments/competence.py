"""Assignment by competence: an image goes to the participant that is best in the image's region.

Regions are clusters of the reference's targets on the shared set. The region of any other image is
predicted before any prior has seen it, by a linear classifier of thumbnails that is fitted on the
shared set. This costs the platform decoding every image once, but no forward pass. A participant's
competence in a region is measured on the shared set by the held-out targets from which its R2 is
computed.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import nn

from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import Source
from coopt_fl.policies.assignment import Member
from coopt_fl.policies.competence import by_competence, mean_errors
from coopt_fl.priors import Prior
from coopt_fl.students.classifier import fit_linear
from coopt_fl.targets import represent
from experiments.agreement import Agreed, Array, Rows

SIDE = 8
"""Side of a thumbnail in pixels."""

Exact = NDArray[np.float64]


def thumbnails(source: Source) -> Array:
    """Return every image at 8x8 pixels, float32 (N, 192)."""
    half = (0.5, 0.5, 0.5)
    prior = Prior.from_module(nn.Flatten(), name="thumbnail", size=SIDE, mean=half, std=half)
    seen = represent(
        prior, source, source.ids, batch_size=256, precision="float32", on_error="raise"
    )
    found: Array = seen.values
    return found


def regions(agreed: Agreed, seen: Array, count: int, seed: int) -> Rows:
    """Return the region of every image, int64 (N,).

    Args:
        agreed: Contains the reference's targets of the shared set.
        seen: float32 (N, d), such as the thumbnails of all images.
        count: Number of regions.
        seed: Seed of the clustering.
    """
    seed = derive_seed(seed, "regions") % 2**32
    clusters = KMeans(count, n_init=4, random_state=seed).fit_predict(agreed.shared_targets)
    x = torch.from_numpy(seen)
    told = fit_linear(x[agreed.plan.shared], torch.from_numpy(clusters.astype(np.int64)))
    found: Rows = told.predict(x).numpy()
    return found


def errors(agreed: Agreed) -> Exact:
    """Return the squared error (K, S) of each participant's held-out targets."""
    wanted = agreed.shared_targets.astype(np.float64)
    held_out = [one.targets for one in agreed.held_out().values()]
    return np.stack([np.square(targets - wanted).sum(axis=1) for targets in held_out])


def images_by_competence(agreed: Agreed, region: Rows, most: float, seed: int) -> dict[str, Rows]:
    """Return each participant's rows such that the total expected error is least.

    Args:
        agreed: Contains the held-out targets that measure competence.
        region: int64 (N,), the region of every image.
        most: Largest shard relative to the mean size; 1 makes all equal.
        seed: Seed of the distribution of a region's images among several participants.
    """
    region = np.unique(region, return_inverse=True)[1]
    of_shared, count = region[agreed.plan.shared], region.max() + 1
    members = [
        Member(name, errors=mean_errors(wrong, of_shared, count)[region], most=most)
        for name, wrong in zip(agreed.features, errors(agreed), strict=True)
    ]
    rng = np.random.default_rng(derive_seed(seed, "competence"))
    each = [rng.permutation(np.flatnonzero(region == place)) for place in range(count)]
    rows = np.concatenate(each)
    owners = np.array(by_competence(rows.tolist(), members))
    return {member.name: np.sort(rows[owners == member.name]) for member in members}


def predicted(agreed: Agreed) -> float:
    """Return the R2 of the shared set's held-out targets, each by its sample's owner."""
    wanted, at = agreed.shared_targets.astype(np.float64), agreed.plan.shared
    mine = np.stack([np.isin(at, agreed.rows_of(name)) for name in agreed.features])  # (K, S)
    total = np.square(wanted - wanted.mean(axis=0)).sum()
    return 1.0 - float(errors(agreed)[mine].sum() / total)
