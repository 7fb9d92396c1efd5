import json
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from dp_accounting import GaussianDpEvent
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from coopt_fl.config.schema import PrivacyConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.privacy import (
    Guard,
    check,
    count_releases,
    epsilon,
    half,
    normal_numbers,
    normalise,
    read_secret,
    summary,
)

SECRET = b"s" * 32
WHAT = ("targets", "alpha", "prior", "alignment")
rows_of = arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 9)),
    elements=st.floats(-(2.0**99), 2.0**99, width=32),
)


def some_rows(rows: int = 40, width: int = 500, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def noise_of(guard: Guard, x: np.ndarray, ids: np.ndarray, *what: str) -> np.ndarray:
    """Return the added noise, in units of its planned standard deviation."""
    clipped = Guard(guard.clip, 0.0, b"").release(x, ids)
    planned = guard.noise_multiplier * guard.clip * math.sqrt(x.shape[1])
    return (guard.release(x, ids, *what).astype(np.float64) - clipped) / planned


# ---- clipping and normalisation


@given(rows_of, st.floats(0.01, 100))
def test_a_clipped_row_keeps_its_direction_and_fits_the_ball(x: np.ndarray, clip: float) -> None:
    largest = clip * math.sqrt(x.shape[1])
    released = Guard(clip, 0.0, SECRET).release(x, np.arange(len(x))).astype(np.float64)
    for row, before in zip(released, x.astype(np.float64), strict=True):
        norm = math.sqrt(math.fsum(before * before))
        expected = before if norm <= largest else before / norm * largest
        np.testing.assert_allclose(row, expected, rtol=1e-6, atol=1e-37)


@given(rows_of)
def test_normalised_rows_have_entries_of_unit_rms(x: np.ndarray) -> None:
    for row, before in zip(normalise(torch.from_numpy(x)), x.astype(np.float64), strict=True):
        norm = math.sqrt(math.fsum(before * before))
        expected = before / norm * math.sqrt(len(before)) if norm > 0 else before
        np.testing.assert_allclose(row, expected, rtol=1e-6, atol=1e-37)


def test_normalising_is_a_matter_of_each_row_alone() -> None:
    x = torch.from_numpy(some_rows(6, 9))
    assert torch.equal(normalise(x)[3:5], normalise(x[3:5]))


# ---- noise


def test_noise_is_normal_independent_and_as_strong_as_planned() -> None:
    x = some_rows()
    noise = noise_of(Guard(0.7, 1.5, SECRET), x, np.arange(len(x)), *WHAT)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    chance = 5 / math.sqrt(noise.size)
    assert abs(noise.mean()) < chance
    assert abs(noise.std() - 1) < chance
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < chance
    assert abs((noise[1:] * noise[:-1]).mean()) < chance
    assert abs((noise * x).mean()) < chance


def test_a_row_is_released_as_the_same_bits_whatever_comes_with_it() -> None:
    x, ids = some_rows(8, 30), np.arange(100, 108)
    guard = Guard(1.0, 0.5, SECRET)
    together = guard.release(x, ids, *WHAT)
    chosen = [5, 2]
    assert np.array_equal(guard.release(x[chosen], ids[chosen], *WHAT), together[chosen])
    assert np.array_equal(
        Guard(1.0, 0.5, SECRET).release(np.asfortranarray(x), ids, *WHAT), together
    )


@pytest.mark.parametrize(
    ("guard", "what", "shift", "change"),
    [
        (Guard(1.0, 0.5, b"t" * 32), WHAT, 0, 0.0),
        (Guard(1.0, 0.5, SECRET), ("features", *WHAT[1:]), 0, 0.0),
        (Guard(1.0, 0.5, SECRET), ("targetsa", "lpha", *WHAT[2:]), 0, 0.0),
        (Guard(1.0, 0.5, SECRET), WHAT, 1, 0.0),
        (Guard(1.0, 0.5, SECRET), WHAT, 0, 1e-6),
        (Guard(1.0, 0.6, SECRET), WHAT, 0, 0.0),
        (Guard(1.1, 0.5, SECRET), WHAT, 0, 0.0),
    ],
    ids=["secret", "function", "words", "sample", "row", "multiplier", "clip"],
)
def test_whatever_differs_has_noise_of_its_own(
    guard: Guard, what: tuple[str, ...], shift: int, change: float
) -> None:
    """Otherwise the difference of two releases would reveal the difference of two rows."""
    x, ids = some_rows(10), np.arange(10)
    first = noise_of(Guard(1.0, 0.5, SECRET), x, ids, *WHAT)
    second = noise_of(guard, x * np.float32(1 + change), ids + shift, *what)
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)]
    assert max(np.abs(correlations)) < 5 / math.sqrt(x.shape[1])


def test_two_samples_with_the_same_row_do_not_look_the_same() -> None:
    x = np.repeat(some_rows(1), 2, axis=0)
    a, b = Guard(1.0, 0.5, SECRET).release(x, np.arange(2), *WHAT)
    assert abs(np.corrcoef(a - x[0], b - x[0])[0, 1]) < 5 / math.sqrt(x.shape[1])


def test_noise_is_finite_and_symmetric_to_its_very_ends() -> None:
    low, high = normal_numbers(b"\0" * 8 + b"\xff" * 8)
    assert -8.3 < low < -8 and high == pytest.approx(-low)


def test_the_secret_is_not_shown() -> None:
    assert "ssss" not in repr(Guard(1.0, 0.5, SECRET))


def test_float16_never_overflows() -> None:
    got = half(np.array([[1e9, -1e9, 65504, 65519, 1.0, 2.0**-24]], np.float32))
    assert got.dtype == np.float16
    assert got.tolist() == [[65504, -65504, 65504, 65504, 1.0, 2.0**-24]]


# ---- accounting


def delta_of(noise: float, eps: float) -> float:
    """Balle & Wang 2018, theorem 8, for rows at a distance of twice the largest norm."""
    ratio = 2 / noise
    near = stats.norm.cdf(ratio / 2 - eps / ratio)
    return float(near - np.exp(eps + stats.norm.logcdf(-ratio / 2 - eps / ratio)))


@pytest.mark.parametrize("noise", [0.1, 0.5, 2.0, 8.0, 40.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-7])
def test_epsilon_of_one_release_is_the_analytic_one(noise: float, delta: float) -> None:
    assert delta_of(noise, epsilon(noise, 1, delta)) == pytest.approx(delta, rel=1e-6)


def test_epsilon_of_one_release_by_the_definition() -> None:
    """delta is the integral of max(0, p - e^eps q) over the platform's observations."""
    noise, eps = 3.0, epsilon(3.0, 1, 1e-4)
    seen = np.linspace(-40, 42, 2_000_001)
    p, q = (stats.norm.pdf(seen, centre, noise) for centre in (2.0, 0.0))
    assert np.trapezoid(np.maximum(0, p - np.exp(eps) * q), seen) == pytest.approx(1e-4, rel=1e-4)


@pytest.mark.parametrize("releases", [2, 5, 40])
def test_epsilon_of_several_releases_is_what_another_accountant_says(releases: int) -> None:
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(GaussianDpEvent(6.0 / 2), releases)
    expected = accountant.get_epsilon(1e-5)
    assert epsilon(6.0, releases, 1e-5) == pytest.approx(expected, rel=1e-3)


def test_nothing_released_and_nothing_hidden() -> None:
    assert epsilon(0.0, 0, 1e-5) == 0
    assert epsilon(0.0, 1, 1e-5) == math.inf


def test_a_missing_accountant_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ConfigError, match=r"pip install 'dp-accounting>="):
        check(PrivacyConfig(clip=1.0, noise_multiplier=1.0), 64)
    check(PrivacyConfig(clip=1.0), 64)
    summary(PrivacyConfig(clip=1.0), np.ones(4, np.int64))


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 20), unique=True), max_size=6))
def test_releases_are_counted(uploads: list[list[int]]) -> None:
    ids = np.arange(21) * 3
    counts = count_releases(ids, [3 * np.array(one, np.int64) for one in uploads])
    expected = Counter(number for one in uploads for number in one)
    assert counts.tolist() == [expected[number] for number in range(21)]


def test_the_summary_says_how_many_samples_lose_how_much() -> None:
    counts = np.array([1] * 90 + [2] * 4 + [5] * 6)
    told = summary(PrivacyConfig(clip=0.5, noise_multiplier=3.0), counts)
    assert told["delta"] == pytest.approx(1e-3)
    assert told["adjacency"] == "one image replaced by another"
    assert [(one["releases"], one["samples"]) for one in told["loss"]] == [(1, 90), (2, 4), (5, 6)]
    for one in told["loss"]:
        noise = 3.0 / math.sqrt(one["releases"])
        assert delta_of(noise, one["epsilon"]) == pytest.approx(1e-3, rel=1e-6)


def test_without_noise_the_summary_claims_nothing_and_is_still_json() -> None:
    told = summary(PrivacyConfig(clip=0.5), np.ones(10, np.int64))
    assert told["loss"] == [{"releases": 1, "samples": 10, "epsilon": None}]
    json.dumps(told, allow_nan=False)


# ---- settings and secrets


@pytest.mark.parametrize(
    ("privacy", "told"),
    [
        (PrivacyConfig(noise_multiplier=1.0), "needs privacy.clip"),
        (PrivacyConfig(clip=1.0, noise_multiplier=400.0), "float16"),
    ],
)
def test_settings_that_cannot_work_are_refused(privacy: PrivacyConfig, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(privacy, 512)


def test_settings_at_the_edge_never_need_the_saturation() -> None:
    check(PrivacyConfig(clip=1.0, noise_multiplier=300.0), 512)
    released = Guard(1.0, 300.0, SECRET).release(some_rows(400, 512), np.arange(400), *WHAT)
    assert np.abs(released).max() < 65504


def test_no_privacy_is_no_problem() -> None:
    check(PrivacyConfig(), 512)


def test_a_secret_is_read_and_bad_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with pytest.raises(ConfigError, match="urandom"):
        read_secret(path)
    path.write_bytes(b"\n" * 31 + b"x")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others can read"):
        read_secret(path)
    path.chmod(0o600)
    assert read_secret(path) == b"\n" * 31 + b"x"
    path.write_bytes(b"x" * 31)
    with pytest.raises(ConfigError, match="31 bytes"):
        read_secret(path)
