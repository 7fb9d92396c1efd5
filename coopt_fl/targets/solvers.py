"""Solvers: they fit a participant's features to the reference's targets on the shared set.

A solver takes source (S, m), target (S, n) and a seed, and returns weight (m, n) and bias (n,),
all float64 and on one device; the shipped ones never synchronize with it. :func:`affine` turns a
fit of centred data into one with an intercept.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from coopt_fl.core.seeding import derive_seed
from coopt_fl.targets.linear import is_constant, random_orthonormal, root_mean_square

SGD_STEPS = 500

Affine = tuple[Tensor, Tensor]
Solver = Callable[[Tensor, Tensor, int], Affine]


def affine(fit: Callable[[Tensor, Tensor, int], Tensor]) -> Solver:
    """Return a solver that fits a weight to centred data, and the bias that restores the means.

    A source without variance gets a weight of zeros: the mean target is the best prediction.
    """

    def solve(source: Tensor, target: Tensor, seed: int) -> Affine:
        source_mean, target_mean = source.mean(dim=0), target.mean(dim=0)
        centred = source - source_mean
        fitted = fit(centred, target - target_mean, seed)
        weight = torch.where(is_constant(centred, source), 0.0, fitted)
        return weight, target_mean - source_mean @ weight

    return solve


@affine
def ridge(x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Least squares with an L2 penalty, its strength by generalised cross-validation.

    Solved in the smaller of the primal (m, m) and the dual (S, S) form.
    """
    dual = len(x) < x.shape[1]
    values, vectors = torch.linalg.eigh(x @ x.T if dual else x.T @ x)
    moments = vectors.T @ (y if dual else x.T @ y)
    # Rounding in the directions that the samples do not span would fake degrees of freedom.
    spanned = values > values[-1] * len(values) * torch.finfo(torch.float64).eps
    values = values * spanned
    energy, unspanned = moments.square().sum(dim=1), y.new_zeros(())
    if not dual:
        energy = torch.where(spanned, energy / values, 0.0)
        unspanned = (y.square().sum() - energy.sum()).clamp_min(0)
    strength = _best_strength(values, energy, unspanned, len(x))
    solution: Tensor = vectors @ (moments / (values + strength)[:, None])
    return x.T @ solution if dual else solution


@affine
def lstsq(x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Least squares of minimum norm, as in textbooks; its error blows up where S is near m.

    It uses the pseudoinverse, because torch's own ``lstsq`` needs full rank on a GPU.
    """
    weight: Tensor = torch.linalg.pinv(x) @ y
    return weight


@affine
def procrustes(x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Rotation (rectangular if m != n) and one scale (Schoenemann 1966; with Carroll 1970).

    The rotation maximises trace(weight' x'y); directions that S does not span are left out.
    """
    left, strengths, right = torch.linalg.svd(x.T @ y, full_matrices=False)
    known = strengths > strengths[0] * max(x.shape) * torch.finfo(torch.float32).eps
    rotation: Tensor = (left * known) @ right
    turned = x @ rotation
    energy = turned.square().sum()
    return rotation * torch.where(energy > 0, (turned * y).sum() / energy, 0.0)


@affine
def sgd(x: Tensor, y: Tensor, seed: int) -> Tensor:
    """The paper's recipe: a random weight to n, then T (n, n) from the identity by AdamW."""
    first = random_weight(x.shape[1], y.shape[1], seed, x.device)
    source = x @ first
    scale = root_mean_square(source)
    scale = torch.where(scale > 0, scale, 1.0)
    source = source / scale
    generator = torch.Generator().manual_seed(derive_seed(seed, "sgd"))
    weight = torch.eye(y.shape[1], dtype=torch.float64, device=x.device, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=1e-3)
    for _ in range(SGD_STEPS):
        rows = torch.randperm(len(x), generator=generator)[:128].to(x.device)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(source[rows] @ weight, y[rows]).backward()
        optimizer.step()
    return first / scale @ weight.detach()


def none(source: Tensor, target: Tensor, seed: int) -> Affine:
    """No fit at all: a random orthonormal weight, the identity where m = n; for ablations."""
    weight = random_weight(source.shape[1], target.shape[1], seed, source.device)
    return weight, torch.zeros_like(target[0])


def random_weight(m: int, n: int, seed: int, device: torch.device) -> Tensor:
    """Return the seeded random orthonormal weight (m, n), the identity where m = n."""
    if m == n:
        return torch.eye(m, dtype=torch.float64, device=device)
    return random_orthonormal(m, n, derive_seed(seed, "weight", m, n), device)


def _best_strength(values: Tensor, energy: Tensor, unspanned: Tensor, rows: int) -> Tensor:
    """Return the strength with the least generalised cross-validation score (Golub et al. 1979).

    ``values`` are the eigenvalues of the Gram matrix, ``energy`` the sums of squares of y in their
    directions, ``unspanned`` the sum of squares of the rest. One strength (1,) for all target
    entries.
    """
    steps = torch.logspace(-10, 3, 53, dtype=torch.float64, device=values.device)
    strengths = values[-1] * steps
    shrink = strengths[:, None] / (values + strengths[:, None])
    residual = unspanned + shrink.square() @ energy
    freedom = rows - 1 - len(values) + shrink.sum(dim=1)
    return strengths[(residual / freedom.square()).argmin(dim=0, keepdim=True)]
