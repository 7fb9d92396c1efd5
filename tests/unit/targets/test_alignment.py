import hashlib
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score as sklearn_r2
from torch import Tensor

from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.registry import PARTS
from coopt_fl.targets import Alignment, fit_alignment, held_out
from coopt_fl.targets.alignment import folds, r2_score
from coopt_fl.targets.collaborate import CPU

quiet = pytest.mark.filterwarnings("ignore:.*shared samples are few")


def planted(rows: int, m: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((rows, m)), rng.standard_normal((m, n))
    return x, weight, x @ weight + 3


@pytest.mark.parametrize("solver", ["ridge", "lstsq"])
@pytest.mark.parametrize(("m", "n"), [(10, 4), (4, 10), (6, 6)])
@quiet
def test_recovers_a_planted_map(solver: str, m: int, n: int) -> None:
    x, weight, y = planted(60, m, n)
    found = fit_alignment(x, torch.from_numpy(y), solver)
    np.testing.assert_allclose(found.weight, weight, atol=1e-5)
    np.testing.assert_allclose(found.bias, 3, atol=1e-5)
    assert held_out(x, y, solver).r2 > 1 - 1e-6
    fresh = np.random.default_rng(9).standard_normal((5, m)).astype(np.float32)
    targets = found.on(CPU)(torch.from_numpy(fresh))
    assert targets.dtype == torch.float32
    np.testing.assert_allclose(targets, fresh @ weight + 3, atol=1e-4)


@settings(max_examples=30)
@given(
    rows=st.integers(4, 24),
    m=st.integers(1, 12),
    n=st.integers(1, 8),
    solver=st.sampled_from(["ridge", "procrustes", "lstsq", "none"]),
    seed=st.integers(0, 99),
)
@quiet
def test_any_shape_gives_a_finite_map(rows: int, m: int, n: int, solver: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((rows, m)), rng.standard_normal((rows, n))
    found = fit_alignment(x, y, solver)
    assert found.weight.shape == (m, n)
    assert found.bias.shape == (n,)
    assert held_out(x, y, solver).r2 <= 1
    assert found.solver == solver


@settings(max_examples=20)
@given(seed=st.integers(0, 99), solver=st.sampled_from(["ridge", "procrustes"]))
@quiet
def test_turns_with_the_source_and_moves_with_the_target(seed: int, solver: str) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((20, 6)), rng.standard_normal((20, 3))
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    plain, turned = fit_alignment(x, y, solver), fit_alignment(x @ turn + 2, 5 * y - 1, solver)
    np.testing.assert_allclose(turned.weight, 5 * turn.T @ plain.weight, atol=1e-4)
    plain_r2, turned_r2 = held_out(x, y, solver).r2, held_out(x @ turn + 2, 5 * y - 1, solver).r2
    assert turned_r2 == pytest.approx(plain_r2, abs=1e-6)


@quiet
def test_r2_is_measured_on_rows_held_out() -> None:
    """Least squares through as many rows as unknowns fits noise perfectly, and predicts nothing."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 60)), rng.standard_normal((40, 8))
    found = fit_alignment(x, y, "lstsq")
    assert np.abs(x @ found.weight + found.bias - y).max() < 1e-4
    assert held_out(x, y, "lstsq").r2 < 0


def test_held_out_is_by_maps_fitted_without_the_row() -> None:
    """Recomputed with scikit-learn's model on the same five folds; targets have a common mean."""
    from sklearn.linear_model import LinearRegression

    x, _, y = planted(60, 5, 4)
    y = y + np.random.default_rng(1).standard_normal(y.shape)
    predicted, means = np.empty_like(y), np.empty_like(y)
    for fold in folds(60, 7):
        kept = np.setdiff1d(np.arange(60), fold)
        predicted[fold] = LinearRegression().fit(x[kept], y[kept]).predict(x[fold])
        means[fold] = y[kept].mean(axis=0)
    found = held_out(x, y, "lstsq", seed=7)
    r2 = 1 - ((y - predicted) ** 2).sum() / ((y - y.mean(axis=0)) ** 2).sum()
    assert found.r2 == pytest.approx(r2, abs=1e-9)
    np.testing.assert_allclose(found.targets, predicted - means + means.mean(axis=0), atol=1e-5)


@quiet
def test_heldout_targets_are_as_wide_as_those_of_other_samples() -> None:
    """With S below m, ridge nearly reproduces the targets of S, whose spread is much wider."""
    x, _, y = planted(4040, 120, 3)
    found = fit_alignment(x[:40], y[:40], "ridge")
    others = x[40:] @ found.weight
    heldout = held_out(x[:40], y[:40], "ridge").targets
    assert heldout.dtype == np.float32
    assert heldout.std() == pytest.approx(others.std(), rel=0.25)
    assert (x[:40] @ found.weight).std() > 1.5 * others.std()


def test_heldout_targets_of_no_alignment_are_its_own() -> None:
    x, _, y = planted(400, 6, 4)
    heldout, found = held_out(x, y, "none", 3).targets, fit_alignment(x, y, "none", 3)
    exact = x @ found.weight
    np.testing.assert_allclose(heldout, exact, atol=0.1 * exact.std())
    with pytest.raises(PriorError, match=r"400 samples.*targets of 9"):
        held_out(x, y[:9])


@pytest.mark.parametrize(("rows", "count"), [(4, 4), (5, 5), (6, 5), (103, 5)])
def test_folds_part_the_rows(rows: int, count: int) -> None:
    found = folds(rows, 0)
    assert sorted(np.concatenate(found).tolist()) == list(range(rows))
    sizes = [len(fold) for fold in found]
    assert len(found) == count
    assert max(sizes) - min(sizes) <= 1
    assert rows < 100 or any((a != b).any() for a, b in zip(found, folds(rows, 1), strict=True))


def test_r2_score_is_scikit_learns_where_columns_vary_alike() -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal((50, 3))
    predicted = y + 0.3 * rng.standard_normal(y.shape)
    expected = sklearn_r2(y, predicted, multioutput="variance_weighted")
    assert r2_score(torch.from_numpy(y), torch.from_numpy(predicted)) == pytest.approx(expected)
    assert r2_score(torch.full((5, 2), 0.1), torch.zeros(5, 2)) == 0


@pytest.mark.parametrize(
    "solver", sorted({*PARTS.names("solver")} - {"sgd"})
)  # 500 steps: elsewhere
@quiet
def test_the_seed_decides_everything(solver: str) -> None:
    x, _, y = planted(30, 6, 4)
    first, again = (fit_alignment(x, y, solver, seed=3) for _ in range(2))
    assert first.sha256 == again.sha256
    assert held_out(x, y, solver, 3).r2 == held_out(x, y, solver, 3).r2


@pytest.mark.parametrize("solver", ["ridge", "procrustes", "lstsq"])
@quiet
def test_the_bits_do_not_depend_on_where_an_array_lies(solver: str) -> None:
    """A linear algebra library may sum in another order if memory is aligned differently."""
    x, _, y = (one.astype(np.float32) for one in planted(150, 330, 40))
    elsewhere = [np.empty(one.size + 3, np.float32)[3:].reshape(one.shape) for one in (x, y)]
    np.copyto(elsewhere[0], x)
    np.copyto(elsewhere[1], y)
    assert fit_alignment(x, y, solver).sha256 == fit_alignment(*elsewhere, solver).sha256


def test_sha256_is_of_the_little_endian_bytes() -> None:
    weight, bias = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)
    expected = hashlib.sha256(weight.tobytes() + bias.tobytes()).hexdigest()
    for order in ("C", "F"):
        kept = Alignment(np.array(weight, order=order), bias, "ridge")
        assert kept.sha256 == expected
    assert Alignment(weight + 1, bias, "ridge").sha256 != expected
    assert Alignment(weight, bias + 1, "ridge").sha256 != expected


def test_an_alignment_owns_its_arrays() -> None:
    weight, bias = np.ones((2, 3), np.float32), np.zeros(3, np.float32)
    weight.flags.writeable = False
    found = Alignment(weight, bias, "ridge")
    bias[:] = 9
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns where an array cannot be written to
        assert (found.on(CPU)(torch.ones(1, 2)) == 2).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_apply_computes_in_float32(dtype: torch.dtype) -> None:
    found = Alignment(np.full((2, 1), 1 / 3), np.full(1, 1e-4), "ridge")  # type: ignore[arg-type]
    targets = found.on(CPU)(torch.ones(1, 2, dtype=dtype))
    assert targets.dtype == torch.float32
    assert targets.item() == pytest.approx(2 / 3 + 1e-4, abs=1e-7)


def test_targets_can_be_realigned() -> None:
    """An Alignment from targets (n) to targets (n) realigns an old dataset to a new reference."""
    old, _, new = planted(40, 7, 7)
    assert fit_alignment(old, new).weight.shape == (7, 7)


@pytest.mark.parametrize(("rows", "warned"), [(4, True), (7, True), (8, False)])
def test_warns_below_twice_the_dimension_only(rows: int, warned: bool) -> None:
    x, _, y = planted(rows, 3, 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit_alignment(x, y)
    assert [("shared.size to 8" in str(w.message)) for w in caught] == [True] * warned


def test_a_solver_may_compute_in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    def outside(source: Tensor, target: Tensor, seed: int) -> tuple[np.ndarray, np.ndarray]:
        assert source.dtype == target.dtype == torch.float64
        weight = np.linalg.lstsq(source.cpu().numpy(), target.cpu().numpy(), rcond=None)[0]
        return weight.astype(np.float32), np.zeros(target.shape[1])

    part = PARTS.find("solver", "ridge")
    monkeypatch.setitem(PARTS._parts, ("solver", "outside"), replace(part, made=outside))
    x, weight, y = planted(60, 5, 3)
    np.testing.assert_allclose(fit_alignment(x, y - 3, "outside").weight, weight, atol=1e-5)
    assert held_out(x, y - 3, "outside").r2 > 1 - 1e-6


def test_refuses_what_cannot_be_aligned() -> None:
    x, _, y = planted(10, 3, 2)
    with pytest.raises(ConfigError, match=r"at least 4.*got 3"):
        fit_alignment(x[:3], y[:3])
    with pytest.raises(ConfigError, match="did you mean procrustes"):
        fit_alignment(x, y, "procrustus")
    with pytest.raises(PriorError, match=r"10 samples.*targets of 9"):
        fit_alignment(x, y[:9])
    for bad in (np.nan, np.inf):
        x[4, 1] = bad
        with pytest.raises(PriorError, match="features are not finite in row 4"):
            fit_alignment(x, y)


def test_refuses_maps_that_do_not_fit() -> None:
    good, bias = np.ones((3, 2), np.float32), np.ones(2, np.float32)
    with pytest.raises(PriorError, match="weight \\(m, n\\)"):
        Alignment(good, np.ones(3, np.float32), "ridge")
    with pytest.raises(PriorError, match="weight is not finite"):
        Alignment(good * np.float32(np.nan), bias, "ridge")
    for shape in ((5, 2), (3,)):
        with pytest.raises(PriorError, match="width 3"):
            Alignment(good, bias, "ridge").on(CPU)(torch.ones(shape))
