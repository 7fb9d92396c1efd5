"""Each solver compared with another implementation, or with its definition by brute force."""

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV

from coopt_fl.registry import PARTS
from coopt_fl.targets.solvers import Solver, lstsq, none, procrustes, ridge, sgd

SHAPES = [(80, 12, 5), (12, 40, 5), (40, 40, 3), (41, 40, 3), (30, 20, 20), (9, 6, 15)]


def fit(solve: Solver, x: np.ndarray, y: np.ndarray, seed: int = 0) -> tuple[np.ndarray, ...]:
    weight, bias = solve(torch.from_numpy(x), torch.from_numpy(y), seed)
    return weight.numpy(), bias.numpy()


def problem(rows: int, m: int, n: int, noise: float = 0.5, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, m)) * np.geomspace(3, 0.1, m) + rng.standard_normal(m)
    y = x @ rng.standard_normal((m, n)) + noise * rng.standard_normal((rows, n)) + 2
    return x, y


def strength_of(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """Return the strength of a ridge solution, from X'(Y - XW) = strength W."""
    gradient = x.T @ (y - x @ weight)
    strength = float((weight * gradient).sum() / (weight * weight).sum())
    assert np.abs(gradient - strength * weight).max() < 1e-6 * np.abs(x.T @ y).max()
    return strength


def gcv(x: np.ndarray, y: np.ndarray, strength: float) -> float:
    """Generalised cross-validation by its definition; the intercept is a degree of freedom too."""
    rows, m = x.shape
    hat = x @ np.linalg.solve(x.T @ x + strength * np.eye(m), x.T) + 1 / rows
    return float(((y - hat @ y) ** 2).sum() / np.trace(np.eye(rows) - hat) ** 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_ridge_is_scikit_learns_at_the_strength_with_the_least_gcv(shape: tuple[int, ...]) -> None:
    x, y = problem(*shape)
    weight, bias = fit(ridge, x, y, 0)
    xc, yc = x - x.mean(axis=0), y - y.mean(axis=0)
    strength = strength_of(xc, yc, weight)
    reference = Ridge(strength, solver="svd").fit(x, y)
    np.testing.assert_allclose(weight, reference.coef_.T, atol=1e-6)
    np.testing.assert_allclose(bias, reference.intercept_, atol=1e-6)
    top = np.linalg.norm(xc, 2) ** 2
    least = min(gcv(xc, yc, top * s) for s in np.logspace(-6, 3, 200))
    assert gcv(xc, yc, strength) <= 1.05 * least


@pytest.mark.parametrize("rows", [30, 59, 60, 61, 120, 400])
def test_ridge_predicts_as_well_as_leave_one_out_would(rows: int) -> None:
    """This is tested around |S| = m, where plain least squares blows up."""
    x, y = problem(rows + 500, 60, 8, noise=2.0, seed=rows)
    train, test = slice(rows), slice(rows, None)
    weight, bias = fit(ridge, x[train], y[train], 0)
    reference = RidgeCV(np.logspace(-4, 6, 60)).fit(x[train], y[train])
    ours = ((x[test] @ weight + bias - y[test]) ** 2).mean()
    theirs = ((reference.predict(x[test]) - y[test]) ** 2).mean()
    assert ours <= 1.15 * theirs


def test_lstsq_blows_up_at_the_width_and_ridge_does_not() -> None:
    x, y = problem(560, 60, 8, noise=2.0)
    errors = {}
    for solve in (ridge, lstsq):
        weight, bias = fit(solve, x[:61], y[:61], 0)
        errors[solve] = ((x[61:] @ weight + bias - y[61:]) ** 2).mean() / y.var()
    assert errors[lstsq] > 5 * errors[ridge]
    assert errors[ridge] < 1


@pytest.mark.parametrize("rank", [1, 3])
def test_ridge_shrugs_off_features_of_low_rank(rank: int) -> None:
    """Numerically zero directions, at S = m and beyond, must not count as degrees of freedom."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((40, rank))
    x = z @ rng.standard_normal((rank, 40))
    y = z @ rng.standard_normal((rank, 4)) + 0.1 * rng.standard_normal((40, 4))
    weight, bias = fit(ridge, x, y, 0)
    best = LinearRegression().fit(z, y).predict(z)
    assert np.abs(x @ weight + bias - best).max() < 0.02
    assert np.linalg.norm(weight) < 10


def test_ridge_gives_up_on_noise() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 30)), rng.standard_normal((50, 4))
    weight, _ = fit(ridge, x, y, 0)
    assert (x @ weight).std() < 0.5 * fit(lstsq, x, y, 0)[0].std() * 30**0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_lstsq_is_the_minimum_norm_solution(shape: tuple[int, ...]) -> None:
    x, y = problem(*shape)
    weight, bias = fit(lstsq, x, y, 0)
    xc, yc = x - x.mean(axis=0), y - y.mean(axis=0)
    np.testing.assert_allclose(weight, np.linalg.pinv(xc, rcond=1e-12) @ yc, atol=1e-7)
    fitted = LinearRegression().fit(x, y).predict(x)
    np.testing.assert_allclose(x @ weight + bias, fitted, atol=1e-7)


def test_procrustes_is_scipys_where_the_widths_are_equal() -> None:
    x, y = problem(60, 10, 10)
    weight, _ = fit(procrustes, x, y, 0)
    xc, yc = x - x.mean(axis=0), y - y.mean(axis=0)
    rotation, nuclear = scipy.linalg.orthogonal_procrustes(xc, yc)
    np.testing.assert_allclose(weight, rotation * nuclear / (xc * xc).sum(), atol=1e-10)


@pytest.mark.parametrize(("m", "n"), [(12, 5), (5, 12)])
def test_rectangular_procrustes_is_orthonormal_and_no_other_has_more_trace(m: int, n: int) -> None:
    rng = np.random.default_rng(0)
    x, y = problem(60, m, n)
    weight, _ = fit(procrustes, x, y, 0)
    xc, yc = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = np.linalg.norm(weight, 2)
    gram = weight.T @ weight if m >= n else weight @ weight.T
    np.testing.assert_allclose(gram, scale**2 * np.eye(min(m, n)), atol=1e-10)
    ours = np.trace((weight / scale).T @ xc.T @ yc)
    for _ in range(50):
        q = np.linalg.qr(rng.standard_normal((max(m, n), min(m, n))))[0]
        near = scipy.linalg.polar(weight / scale + 0.05 * rng.standard_normal((m, n)))[0]
        for other in (q if m >= n else q.T, near):
            assert np.trace(other.T @ xc.T @ yc) <= ours + 1e-9
    errors = [((yc - s * xc @ weight) ** 2).sum() for s in (0.99, 1.0, 1.01)]
    assert errors[1] == min(errors)  # the one scale is the best of its kind


def test_procrustes_finds_a_planted_rotation_scale_and_shift() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 9)) + 4
    rotation = np.linalg.qr(rng.standard_normal((9, 9)))[0]
    weight, bias = fit(procrustes, x, 2.5 * x @ rotation - 3, 0)
    np.testing.assert_allclose(weight, 2.5 * rotation, atol=1e-9)
    np.testing.assert_allclose(bias, -3, atol=1e-8)


def test_procrustes_leaves_out_what_the_rows_do_not_span() -> None:
    x, y = problem(6, 20, 15)
    weight, _ = fit(procrustes, x, y, 0)
    assert np.linalg.matrix_rank(weight, tol=1e-9) == 5
    unseen = scipy.linalg.null_space(x - x.mean(axis=0))
    assert np.abs(unseen.T @ weight).max() < 1e-8


def test_sgd_improves_on_its_start_and_knows_its_seed() -> None:
    x, y = problem(200, 10, 10, noise=0.1)
    y = (y - y.mean(axis=0)) / y.std()
    x = 50 * (x - x.mean(axis=0))  # the scale of the features is not the learner's business
    weight, bias = fit(sgd, x, y, 0)
    start = ((x / np.sqrt((x * x).mean()) - y) ** 2).mean()
    assert ((x @ weight + bias - y) ** 2).mean() < 0.7 * start
    assert (weight == fit(sgd, x, y, 0)[0]).all()
    assert not (weight == fit(sgd, x, y, 1)[0]).all()


def test_none_does_not_look_at_the_data() -> None:
    x, y = problem(20, 8, 5)
    weight, bias = fit(none, x, y, 0)
    np.testing.assert_allclose(weight.T @ weight, np.eye(5), atol=1e-12)
    assert (bias == 0).all()
    assert (weight == fit(none, x + 1, y * 2, 0)[0]).all()
    assert not np.allclose(weight, fit(none, x, y, 1)[0])
    assert (fit(none, x, x, 0)[0] == np.eye(8)).all()


@pytest.mark.parametrize("solver", [name for name in PARTS.names("solver") if name != "none"])
@pytest.mark.parametrize("level", [0.0, 0.1, -1e6])
def test_a_source_without_variance_predicts_the_mean(solver: str, level: float) -> None:
    """Centring 0.1 leaves rounding errors of 1e-17, which must not be amplified to a signal."""
    x = np.full((10, 6), np.float32(level)).astype(np.float64)
    y = problem(10, 6, 3)[1]
    weight, bias = fit(PARTS.find("solver", solver).object, x, y, 0)
    assert (weight == 0).all()
    np.testing.assert_allclose(bias, y.mean(axis=0))


@pytest.mark.parametrize("solver", PARTS.names("solver"))
def test_targets_without_variance_need_no_weight(solver: str) -> None:
    x, _ = problem(12, 6, 3)
    weight, bias = fit(PARTS.find("solver", solver).object, x, np.full((12, 3), 5.0), 0)
    assert np.isfinite(weight).all()
    if solver in ("ridge", "lstsq", "procrustes"):
        np.testing.assert_allclose(x @ weight + bias, 5.0, atol=1e-6)


@pytest.mark.parametrize(("seed", "rows", "m", "rank"), [(326, 9, 11, 11), (112, 8, 10, 8)])
def test_ridge_does_not_fit_noise_through_rounding(seed: int, rows: int, m: int, rank: int) -> None:
    """With fewer rows than unknowns, rounding in the mean's direction once counted as freedom."""
    rng = np.random.default_rng(seed)
    assert rng.integers(3, 40) == m
    rng.integers(-2, 3), rng.integers(1, m + 1)
    x = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, m))
    x, y = x * 10 ** rng.uniform(-3, 3), rng.standard_normal((rows, 3))
    weight, _ = fit(ridge, x, y, 0)
    assert np.abs((x - x.mean(axis=0)) @ weight).max() < 0.1 * np.abs(y).max()
