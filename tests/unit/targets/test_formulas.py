"""Fits by torch, on the CPU and on a GPU if there is one, compared with numpy and scipy."""

import numpy as np
import pytest
import torch

from coopt_fl.targets import solvers
from coopt_fl.targets.linear import principal_axes, principal_scores
from coopt_fl.targets.projection import fit_projection
from coopt_fl.targets.whitening import FAINTEST, fit_whitening
from tests.unit.targets import formulas

RELATIVE = 1e-9
SHAPES = [(300, 40, 12), (40, 300, 12), (60, 60, 12), (25, 80, 40)]

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def problem(
    rows: int, m: int, n: int, condition: float, rank: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return features of a condition number or a rank, and targets that are linear in them + noise.

    The noise has the size found with other priors' targets. With less than a hundredth of it, ridge
    hardly damps, and the precision that the Gram matrix loses in its faintest directions shows from
    1e-9 on.
    """
    rng = np.random.default_rng(rows)
    least = rank or min(rows, m)
    left = np.linalg.qr(rng.standard_normal((rows, least)))[0]
    right = np.linalg.qr(rng.standard_normal((m, least)))[0]
    x = rows**0.5 * (left * np.geomspace(1, 1 / condition, least)) @ right.T
    y = x @ rng.standard_normal((m, n))
    y += 0.3 * y.std() * rng.standard_normal(y.shape) + 2
    return x + 0.3 * rng.standard_normal(m), y


def apart(found: torch.Tensor | np.ndarray, expected: np.ndarray) -> float:
    """Return the distance of two matrices relative to the norm of the second."""
    ours = found.cpu().numpy() if isinstance(found, torch.Tensor) else found
    return float(np.linalg.norm(ours - expected) / np.linalg.norm(expected))


def on(device: torch.device, *arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.tensor(array, device=device) for array in arrays]


def agree(solver: str, x: np.ndarray, y: np.ndarray, device: torch.device) -> None:
    weight, bias = getattr(solvers, solver)(*on(device, x, y), 0)
    assert weight.device.type == bias.device.type == device.type
    expected = getattr(formulas, solver)(x, y)
    assert apart(weight, expected[0]) < RELATIVE
    assert apart(bias, expected[1]) < RELATIVE


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("condition", [1e1, 1e4, 1e8, 1e12])
@pytest.mark.parametrize("solver", ["ridge", "procrustes"])
def test_solvers(
    solver: str, shape: tuple[int, int, int], condition: float, device: torch.device
) -> None:
    agree(solver, *problem(*shape, condition), device)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("solver", ["ridge", "procrustes", "lstsq"])
def test_solvers_of_features_without_full_rank(
    solver: str, shape: tuple[int, int, int], device: torch.device
) -> None:
    agree(solver, *problem(*shape, 1e3, rank=7), device)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("condition", [1e1, 1e4])
def test_least_squares_as_far_as_the_condition_allows(
    shape: tuple[int, int, int], condition: float, device: torch.device
) -> None:
    """Least squares has no damping: a condition number of 1e12 leaves only four digits."""
    agree("lstsq", *problem(*shape, condition), device)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("condition", [1e1, 1e12])
def test_principal_axes(
    shape: tuple[int, int, int], condition: float, device: torch.device
) -> None:
    x = problem(*shape, condition)[0]
    x -= x.mean(axis=0)
    expected = formulas.principal_axes(x, 2)
    [moved] = on(device, x)
    assert apart(principal_axes(moved, 2), expected) < RELATIVE
    scores = principal_scores(moved, 2).cpu().numpy()
    assert apart(scores * np.sign((scores * (x @ expected)).sum(axis=0)), x @ expected) < RELATIVE
    axes, others = principal_axes(moved, 12).cpu().numpy(), formulas.principal_axes(x, 12)
    assert apart(x @ axes @ axes.T, x @ others @ others.T) < RELATIVE


@pytest.mark.parametrize("condition", [1e1, 1e4])
def test_maps_are_rounded_only_at_the_end(condition: float, device: torch.device) -> None:
    x, _ = problem(300, 40, 12, condition)
    found = fit_projection(*on(device, x), 5, "pca", seed=0)
    for ours, expected in zip((found.weight, found.bias), formulas.projection(x, 5), strict=True):
        assert apart(ours, expected) < np.finfo(np.float32).eps


def test_whitening(device: torch.device) -> None:
    rows = problem(400, 10, 12, 1e2)[0].astype(np.float16)
    found = fit_whitening(rows, device)
    weight, bias = formulas.whitening(rows.astype(np.float64), FAINTEST)
    signs = np.sign((found.weight * weight).sum(axis=0))
    assert apart(found.weight * signs, weight) < 1e-6
    assert apart(found.bias * signs, bias) < 1e-6
