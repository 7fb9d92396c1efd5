"""Assignment by competence: an image goes to whoever predicts the reference best in its region.

Regions are clusters of the reference's targets of the shared set. Which of them any other image is
in has to be known before somebody has looked at it with a prior: a linear classifier of thumbnails
tells, which is fitted to the shared set. It costs the platform to decode every image once, and no
forward pass. How well each participant does in a region is known from the shared set, too: by the
held-out targets that its R2 is computed of.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog
from sklearn.cluster import KMeans
from torch import nn

from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import Source
from coopt_fl.priors import Prior
from coopt_fl.students.classifier import fit_linear
from coopt_fl.targets import represent
from experiments.agreement import Agreed, Array, Rows

SIDE = 8
"""Of a thumbnail in pixels."""

Counts = NDArray[np.int64]
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
        agreed: Has the reference's targets of the shared set.
        seen: float32 (N, d), what is known of every image beforehand.
        count: Number of regions.
        seed: Of the clusters.
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


def by_competence(agreed: Agreed, region: Rows, most: float, seed: int) -> dict[str, Rows]:
    """Return each participant's rows, so that the error in all is least.

    Args:
        agreed: Says how well each does.
        region: int64 (N,), of every image.
        most: Largest shard, in shards of the mean size; 1 makes all equal.
        seed: Of who gets which images of a region that several share.
    """
    wrong, names = errors(agreed), list(agreed.features)
    _, region = np.unique(region, return_inverse=True)
    sizes = np.bincount(region)
    known = np.eye(len(sizes))[region[agreed.plan.shared]]  # (S, R)
    # one sample more, of the participant's mean, for regions of which few samples are shared
    each = (wrong @ known + wrong.mean(axis=1, keepdims=True)) / (known.sum(axis=0) + 1)
    quotas = shared_out(sizes, each.T, int(np.ceil(min(most / len(names), 1) * len(region))))
    rng, owner = np.random.default_rng(derive_seed(seed, "competence")), np.empty_like(region)
    for place, quota in enumerate(quotas):
        rows = rng.permutation(np.flatnonzero(region == place))
        owner[rows] = np.repeat(np.arange(len(names)), quota)
    return {name: np.flatnonzero(owner == k) for k, name in enumerate(names)}


def shared_out(sizes: Counts, costs: Exact, most: int) -> Counts:
    """Return how many images (R, K) of each region each participant gets, at the least cost.

    Args:
        sizes: (R,), images of each region.
        costs: (R, K), of one image.
        most: Images that a participant gets at most.
    """
    regions, people = costs.shape
    found = linprog(
        costs.ravel(),
        A_eq=np.kron(np.eye(regions), np.ones(people)),
        b_eq=sizes,
        A_ub=np.kron(np.ones(regions), np.eye(people)),
        b_ub=np.full(people, most),
        method="highs-ds",  # ends in a corner, and a transport's corners are whole numbers
    )
    whole: Counts = np.rint(found.x).astype(np.int64).reshape(costs.shape)
    return whole


def predicted(agreed: Agreed) -> float:
    """Return the R2 of held-out targets of the shared set, each by the owner of its sample."""
    wanted, at = agreed.shared_targets.astype(np.float64), agreed.plan.shared
    mine = np.stack([np.isin(at, agreed.rows_of(name)) for name in agreed.features])  # (K, S)
    total = np.square(wanted - wanted.mean(axis=0)).sum()
    return 1.0 - float(errors(agreed)[mine].sum() / total)
