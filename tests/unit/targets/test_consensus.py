import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.targets.projection import consensus_targets


def votes(priors: list[np.ndarray]) -> np.ndarray:
    centred = [x - x.mean(axis=0) for x in priors]
    norms = [np.sqrt((x**2).sum(axis=1).mean()) for x in centred]
    return np.concatenate([x / norm for x, norm in zip(centred, norms, strict=True)], axis=1)


@pytest.mark.parametrize("rows", [16, 60])  # both forms: fewer rows than all widths, and more
def test_is_the_pca_of_everyones_scaled_features(latent: Callable, rows: int) -> None:
    world = latent(rows)
    priors = [100 * world.seen(12) + 7, 0.01 * world.seen(20), world.seen(5)]
    targets = consensus_targets([torch.from_numpy(priors[0]), *priors[1:]], 6)
    expected = PCA(6, svd_solver="full").fit_transform(votes(priors))
    expected /= np.sqrt((expected**2).mean())
    expected *= np.sign((expected * targets).sum(axis=0))
    np.testing.assert_allclose(targets, expected, atol=2e-5)
    assert targets.dtype == np.float32


@pytest.mark.parametrize("width", [5, 90])
def test_gcca_adds_up_everyones_ridge_regression(latent: Callable, width: int) -> None:
    world = latent(60)
    priors = [100 * world.seen(12) + 7, 0.01 * world.seen(20), world.seen(width)]
    votes = np.zeros((60, 60))
    for x in priors:
        alpha = 10 / 520 * np.square(x - x.mean(axis=0)).sum()
        votes += Ridge(alpha).fit(x.astype(np.float64), np.eye(60)).predict(x) - 1 / 60
    values, vectors = (found[..., ::-1][..., :6] for found in np.linalg.eigh(votes))
    expected = vectors * np.sqrt(values)
    expected /= np.sqrt((expected**2).mean())
    targets = consensus_targets(priors, 6, "gcca")
    expected *= np.sign((expected * targets).sum(axis=0))
    np.testing.assert_allclose(targets, expected, atol=1e-4)


def test_one_loud_direction_of_one_prior_decides_about_the_pca_alone(latent: Callable) -> None:
    world = latent(200, dim=3)
    priors = [world.seen(30, noise=0.5) for _ in range(3)]
    loud = np.random.default_rng(0).standard_normal(200)
    priors.append(world.seen(30) + 50 * np.outer(loud, np.ones(30)))

    def heard(method: str) -> float:
        return abs(float(np.corrcoef(consensus_targets(priors, 3, method)[:, 0], loud)[0, 1]))

    assert heard("pca") > 0.9
    assert heard("gcca") < 0.5


@pytest.mark.parametrize("method", ["pca", "gcca"])
def test_every_prior_has_one_vote_whatever_its_scale_width_and_mean(
    latent: Callable, method: str
) -> None:
    world = latent(40)
    one, two = world.seen(9), world.seen(9)
    plain = consensus_targets([one, two], 5, method)
    louder = consensus_targets([1000 * one - 50, two], 5, method)
    wider = consensus_targets([np.concatenate([one, one, one], axis=1), two], 5, method)
    for other in (louder, wider):
        signs = np.sign((plain * other).sum(axis=0))
        np.testing.assert_allclose(other * signs, plain, atol=1e-4)


def test_what_all_priors_see_is_nearer_to_the_truth_than_what_one_sees(latent: Callable) -> None:
    """Each prior's noise is its own, so it averages out."""
    world = latent(300, dim=4)
    priors = [world.seen(30, noise=1.5) for _ in range(5)]

    def explained(targets: np.ndarray) -> float:
        q = np.linalg.qr(targets - targets.mean(axis=0))[0]
        z = world.z - world.z.mean(axis=0)
        return float(((q.T @ z) ** 2).sum() / (z**2).sum())

    alone = max(explained(PCA(4).fit_transform(x)) for x in priors)
    assert explained(consensus_targets(priors, 4)) > alone + 0.1


def test_refuses_what_has_no_consensus(latent: Callable) -> None:
    world = latent(11)
    one, two = world.seen(4), world.seen(3)
    with pytest.raises(ConfigError, match=r"2 x targets\.dim = 12, not 11"):
        consensus_targets([one, two], 6)
    with pytest.raises(ConfigError, match="all priors' widths together, 3"):
        consensus_targets([two], 4)
    with pytest.raises(PriorError, match="same samples"):
        consensus_targets([one, two[:10]], 2)
    for level in (0.0, 0.1):
        with pytest.raises(PriorError, match="same for every sample"):
            consensus_targets([one, np.full((11, 3), level, np.float32)], 2)
    with pytest.raises(ConfigError, match="pca or gcca, not 'GCCA'"):
        consensus_targets([one, two], 2, "GCCA")
    two[5, 1] = np.inf
    with pytest.raises(PriorError, match="row 5"):
        consensus_targets([one, two], 2)


@pytest.mark.parametrize("method", ["pca", "gcca"])
def test_memory_holds_the_features_of_one_prior_at_a_time(method: str) -> None:
    rng, known = np.random.default_rng(0), list[weakref.ref[Any]]()

    def features() -> Iterator[NDArray[np.float64]]:
        for _ in range(5):
            one = rng.normal(size=(12, 40))
            known.append(weakref.ref(one))
            yield one
            del one
            assert sum(ref() is not None for ref in known) <= 1

    assert consensus_targets(features(), 3, method).shape == (12, 3)
    assert len(known) == 5
