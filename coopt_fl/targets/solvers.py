"""How a participant's features are fitted to the reference's targets on the shared set.

A solver takes source (S, m), target (S, n) and a seed, and returns weight (m, n) and bias (n,),
all float64. :func:`affine` turns a fit of centred data into one with an intercept.
"""

from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch

from coopt_fl.core.seeding import derive_seed
from coopt_fl.targets.linear import Matrix, is_constant, random_orthonormal, root_mean_square

Affine = tuple[Matrix, Matrix]
Solver = Callable[[Matrix, Matrix, int], Affine]


def affine(fit: Callable[[Matrix, Matrix, int], Matrix]) -> Solver:
    """Return the solver that fits a weight to centred data and adds the bias that restores means.

    A source without variance gets a weight of zeros: the mean target is the best prediction.
    """

    def solve(source: Matrix, target: Matrix, seed: int) -> Affine:
        source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
        centred = source - source_mean
        if is_constant(centred, source):
            return np.zeros((source.shape[1], target.shape[1])), target_mean
        weight = fit(centred, target - target_mean, seed)
        return weight, target_mean - source_mean @ weight

    return solve


@affine
def ridge(x: Matrix, y: Matrix, seed: int) -> Matrix:
    """Least squares with an L2 penalty, its strength by generalised cross-validation.

    Solved in the smaller of the primal (m, m) and the dual (S, S) form.
    """
    dual = len(x) < x.shape[1]
    values, vectors = scipy.linalg.eigh(x @ x.T if dual else x.T @ x)
    # Rounding in the directions that the samples do not span would fake degrees of freedom.
    values[values <= values[-1] * len(values) * np.finfo(np.float64).eps] = 0.0
    moments = vectors.T @ (y if dual else x.T @ y)
    strength = _best_strength(values, moments, dual, len(x), float((y * y).sum()))
    solution: Matrix = vectors @ (moments / (values + strength)[:, None])
    return x.T @ solution if dual else solution


@affine
def lstsq(x: Matrix, y: Matrix, seed: int) -> Matrix:
    """Least squares of minimum norm, the textbook's answer: blows up where S is near m."""
    weight: Matrix = np.linalg.lstsq(x, y, rcond=None)[0].astype(np.float64, copy=False)
    return weight


@affine
def procrustes(x: Matrix, y: Matrix, seed: int) -> Matrix:
    """Rotation (rectangular where m != n) and one scale (Schoenemann 1966; and Carroll 1970).

    The rotation maximises trace(weight' x'y); directions that the shared set does not span are
    left out.
    """
    left, strengths, right = scipy.linalg.svd(x.T @ y, full_matrices=False)
    known = strengths > strengths[0] * max(x.shape) * np.finfo(np.float32).eps
    rotation: Matrix = left[:, known] @ right[known]
    turned = x @ rotation
    energy = float((turned * turned).sum())
    return rotation * (float((turned * y).sum()) / energy if energy > 0 else 0.0)


@affine
def sgd(x: Matrix, y: Matrix, seed: int) -> Matrix:
    """The paper's recipe: a random weight to n, then T (n, n) from the identity by AdamW."""
    first = random_weight(x.shape[1], y.shape[1], seed)
    scale = root_mean_square(x @ first) or 1.0
    generator = torch.Generator().manual_seed(derive_seed(seed, "sgd"))
    source, target = torch.from_numpy(x @ first / scale), torch.from_numpy(y)
    weight = torch.eye(y.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=1e-3)
    for _ in range(500):
        rows = torch.randperm(len(x), generator=generator)[:128]
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(source[rows] @ weight, target[rows]).backward()
        optimizer.step()
    fitted: Matrix = weight.detach().numpy()
    return first / scale @ fitted


def none(source: Matrix, target: Matrix, seed: int) -> Affine:
    """No fit at all: a random orthonormal weight, the identity where m = n; for ablations."""
    return random_weight(source.shape[1], target.shape[1], seed), np.zeros(target.shape[1])


def random_weight(m: int, n: int, seed: int) -> Matrix:
    """Return the seeded random orthonormal weight (m, n), the identity where m = n."""
    return np.eye(m) if m == n else random_orthonormal(m, n, derive_seed(seed, "weight", m, n))


def _best_strength(values: Matrix, moments: Matrix, dual: bool, rows: int, total: float) -> float:
    """Return the strength with the least generalised cross-validation score (Golub et al. 1979).

    ``values`` are the eigenvalues of the Gram matrix, ``moments`` the rotated y (dual) or x'y
    (primal), ``total`` the sum of squares of y. One strength for all target entries.
    """
    energy = (moments * moments).sum(axis=1)
    if not dual:
        energy = np.divide(energy, values, out=np.zeros_like(energy), where=values > 0)
    outside = max(total - float(energy.sum()), 0.0)
    strengths = float(values[-1]) * np.logspace(-10, 3, 53)
    shrink = strengths[:, None] / (values + strengths[:, None])
    residual = outside + (shrink * shrink) @ energy
    freedom = rows - 1 - len(values) + shrink.sum(axis=1)
    return float(strengths[np.argmin(residual / (freedom * freedom))])
