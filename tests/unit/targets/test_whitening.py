import numpy as np
import pytest

from coopt_fl.core.errors import PriorError
from coopt_fl.targets import whitening
from coopt_fl.targets.collaborate import CPU
from coopt_fl.targets.whitening import fit_whitening


def correlated(rows: int, rank: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    strengths = 2.0 ** -np.arange(rank)
    mixed = (rng.normal(size=(rows, rank)) * strengths) @ rng.normal(size=(rank, width))
    return (mixed + rng.normal(size=width)).astype(np.float16)


def whitened(targets: np.ndarray) -> np.ndarray:
    made = fit_whitening(targets, CPU)
    return targets.astype(np.float64) @ made.weight + made.bias


@pytest.mark.parametrize("chunk", [50, 65_536])
def test_makes_targets_uncorrelated_and_of_unit_variance(monkeypatch, chunk) -> None:
    monkeypatch.setattr(whitening, "_CHUNK", chunk)
    found = whitened(correlated(400, 6, 6))
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(6), atol=1e-3)


def test_a_direction_without_variance_becomes_zero_not_noise() -> None:
    targets = np.repeat(correlated(400, 3, 3), 2, axis=1)  # every column twice
    power = np.sort((whitened(targets) ** 2).mean(axis=0))
    np.testing.assert_allclose(power, [0, 0, 0, 1, 1, 1], atol=1e-3)


def test_keeps_what_distinguishes_rows_however_faint() -> None:
    rng = np.random.default_rng(0)
    loud, faint = rng.normal(size=500), rng.choice([-0.05, 0.05], size=500)
    targets = np.stack([loud, faint], axis=1).astype(np.float16)
    correlation = np.corrcoef(np.vstack([whitened(targets).T, faint]))[-1, :-1]
    assert np.abs(correlation).max() > 0.99


def test_refuses_what_is_not_finite() -> None:
    targets = correlated(10, 2, 4)
    targets[3, 1] = np.nan
    with pytest.raises(PriorError, match="row 3"):
        fit_whitening(targets, CPU)
