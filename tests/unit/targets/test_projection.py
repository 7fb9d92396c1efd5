import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.targets import fit_projection
from coopt_fl.targets.collaborate import CPU


def features(rows: int = 80, m: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, m)) * np.geomspace(5, 0.2, m) + 10


def test_pca_is_scikit_learns_up_to_one_scale_and_signs() -> None:
    x = features()
    found = fit_projection(torch.from_numpy(x), 5, "pca", seed=0)
    targets = found.on(CPU)(torch.from_numpy(x)).numpy()
    expected = PCA(5, svd_solver="full").fit_transform(x)
    expected /= np.sqrt((expected**2).mean())
    expected *= np.sign((expected * targets).sum(axis=0))
    np.testing.assert_allclose(targets, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("method", "dim"), [("pca", 5), ("random", 5), ("random", 20), ("none", 12)]
)
def test_targets_are_centred_and_of_unit_rms_with_one_scale(method: str, dim: int) -> None:
    x = features()
    found = fit_projection(x, dim, method, seed=0)
    targets = found.on(CPU)(torch.from_numpy(x)).numpy()
    assert targets.shape == (80, dim)
    assert np.abs(targets.mean(axis=0)).max() < 1e-5
    assert np.sqrt((targets**2).mean()) == pytest.approx(1, abs=1e-5)
    weight = found.weight.astype(np.float64)
    gram = weight.T @ weight if dim <= 12 else weight @ weight.T
    np.testing.assert_allclose(gram / gram[0, 0], np.eye(len(gram)), atol=1e-5)
    assert found.solver == f"projection:{method}"


def test_pca_keeps_more_variance_than_random() -> None:
    """Targets have unit RMS, so weights of smaller norm keep more of the features' variance."""
    norms = [np.linalg.norm(fit_projection(features(), 5, m, 0).weight) for m in ("pca", "random")]
    assert norms[0] < 0.8 * norms[1]


def test_none_is_the_features_themselves() -> None:
    x = features()
    found = fit_projection(x, 12, "none", seed=0)
    centred = x - x.mean(axis=0)
    np.testing.assert_allclose(
        found.on(CPU)(torch.from_numpy(x)), centred / np.sqrt((centred**2).mean()), atol=1e-5
    )


def test_only_random_depends_on_the_seed() -> None:
    x = features()
    for method, same in (("pca", True), ("random", False)):
        one, other = (fit_projection(x, 5, method, seed) for seed in (0, 1))
        assert (one.sha256 == other.sha256) is same
    assert fit_projection(x, 5, "random", 1).sha256 == fit_projection(x, 5, "random", 1).sha256


def test_a_pca_of_too_few_rows_is_a_random_projection_and_says_so() -> None:
    x = features(rows=9)
    with pytest.warns(UserWarning, match="needs 10 samples and got 9"):
        found = fit_projection(x, 5, "pca", seed=3)
    random = fit_projection(x, 5, "random", seed=3)
    assert found.sha256 == random.sha256
    assert found.solver == "projection:random"
    assert fit_projection(features(rows=10), 5, "pca", seed=3).solver == "projection:pca"


@pytest.mark.parametrize("level", [0.0, 0.1, -7e5])
@pytest.mark.parametrize("method", ["pca", "random"])
def test_features_without_variance_are_refused(level: float, method: str) -> None:
    with pytest.raises(PriorError, match="the same for every sample"):
        fit_projection(np.full((30, 6), level, np.float32), 4, method, seed=0)


def test_tiny_variance_is_variance() -> None:
    x = (features() * 1e-25).astype(np.float32)
    targets = fit_projection(x, 5, "pca", 0).on(CPU)(torch.from_numpy(x))
    assert targets.square().mean().sqrt() == pytest.approx(1, abs=1e-3)


def test_refuses_what_does_not_fit() -> None:
    x = features()
    for args, message in (
        ((13, "pca"), "more than the reference's width 12"),
        ((5, "none"), "width 12, not 5"),
        ((5, "umap"), "pca, random, none"),
    ):
        with pytest.raises(ConfigError, match=message):
            fit_projection(x, *args, seed=0)
    with pytest.raises(ConfigError, match="more than"):  # rather than fall back
        fit_projection(x[:4], 13, "pca", seed=0)
    with pytest.raises(PriorError, match="no features"):
        fit_projection(x[:0], 5, "pca", seed=0)
    x[7, 2] = np.nan
    with pytest.raises(PriorError, match="row 7"):
        fit_projection(x, 5, "pca", seed=0)
