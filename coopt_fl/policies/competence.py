"""Assignment by competence: each region's blocks go to the participants that predict it best."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog

from coopt_fl.policies.assignment import Member

Counts = NDArray[np.int64]
Exact = NDArray[np.float64]


def mean_errors(wrong: Exact, region: NDArray[np.intp], count: int) -> Exact:
    """Return the mean error in each region, (count,).

    The mean of all samples counts as one more sample of each region, for those with few or none.

    Args:
        wrong: squared errors (S,) of a participant's held-out targets.
        region: of each of these samples, (S,).
        count: number of regions.
    """
    sums = np.bincount(region, weights=wrong, minlength=count)
    found: Exact = (sums + wrong.mean()) / (np.bincount(region, minlength=count) + 1)
    return found


def by_competence(blocks: Sequence[int], members: Sequence[Member]) -> list[str]:
    """Assign the blocks such that the sum of the expected errors is least.

    Of these blocks no member gets more than ``most`` times as many as its weight alone would give
    it. One whose errors are not known yet counts as the worst.
    """
    rows = list(blocks)
    known = [one.errors[rows] for one in members if one.errors is not None]
    worst = np.max(known, axis=0) if known else np.zeros(len(rows))
    errors = np.array([worst if one.errors is None else one.errors[rows] for one in members])
    weights = np.array([member.weight for member in members])
    times = np.array([member.most for member in members])
    most = np.ceil(np.minimum(times * weights / weights.sum(), 1.0) * len(blocks))
    costs, kind, sizes = np.unique(errors, axis=1, return_inverse=True, return_counts=True)
    owners = np.empty(len(blocks), np.int64)
    for place, quota in enumerate(shared_out(sizes, costs.T, most)):
        owners[np.flatnonzero(kind == place)] = np.repeat(np.arange(len(members)), quota)
    return [members[owner].name for owner in owners.tolist()]


def shared_out(sizes: Counts, costs: Exact, most: Exact) -> Counts:
    """Return how many samples of each region each participant gets, (R, K), at the least cost.

    Args:
        sizes: (R,), samples of each region.
        costs: (R, K), cost of a region's sample for a participant, of any scale.
        most: (K,), whole numbers: most samples of a participant.
    """
    count, people = costs.shape
    spare = costs - costs.min(axis=1, keepdims=True)
    found = linprog(
        spare.ravel() / (spare.max() or 1.0),  # its tolerances are absolute
        A_eq=sparse.kron(sparse.eye(count), np.ones((1, people))),
        b_eq=sizes,
        A_ub=sparse.kron(np.ones((1, count)), sparse.eye(people)),
        b_ub=most,
        method="highs-ds",  # ends at a vertex; those of a transport problem are whole numbers
    )
    whole: Counts = np.rint(found.x).astype(np.int64).reshape(costs.shape)
    return whole
