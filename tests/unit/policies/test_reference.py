"""The election of the reference, and candidates that can never be elected."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from coopt_fl.core.errors import ConfigError, ParticipantError
from coopt_fl.policies.reference import Election, elect, elected
from coopt_fl.targets import CONSENSUS

Features = NDArray[np.float32]


def views(size: int, spread: tuple[float, ...] = (1.0, 0.3)) -> dict[str, Features]:
    """Return priors that see the same five latent causes, scaled by ``spread`` and shifted by 4.

    A common shift makes the features' directions similar, which raises (worsens) the uniformity.
    """
    rng = np.random.default_rng(0)
    causes = rng.normal(size=(size, 5))
    seen = {}
    for name, scale in zip("ab", spread, strict=True):
        features = causes @ rng.normal(size=(5, 12)) + 0.1 * rng.normal(size=(size, 12))
        seen[name] = (scale * features + 4.0).astype(np.float32)
    return seen


def noise(size: int) -> Features:
    return np.random.default_rng(1).normal(size=(size, 64)).astype(np.float32)


def test_the_lowest_uniformity_wins() -> None:
    election = elect(views(60), "best", 4, 0)
    assert election.uniformity["a"] < election.uniformity["b"]
    assert (election.reference, election.best) == ("a", "a")


@pytest.mark.parametrize("size", [13, 60])
def test_noise_has_the_best_uniformity_and_is_not_elected(size: int) -> None:
    features = views(size) | {"mallory": noise(size)}
    election = elect(features, "best", 4, 0)
    assert min(election.uniformity, key=lambda name: election.uniformity[name]) == "mallory"
    assert election.reference == "a"
    assert election.accepted == ["a", "b"]
    assert any("mallory cannot be the reference" in warning for warning in election.warnings)


def test_a_consensus_needs_twice_the_width() -> None:
    assert elect(views(60), CONSENSUS, 30, 0).reference == CONSENSUS
    election = elect(views(60), CONSENSUS, 31, 0)
    assert election.reference == election.best == elect(views(60), "best", 4, 0).best
    assert any("needs 62 shared samples" in warning for warning in election.warnings)


@pytest.mark.parametrize(("size", "warned"), [(13, True), (24, True), (25, False)])
def test_few_shared_samples_are_a_warning(size: int, warned: bool) -> None:
    election = elect(views(size), "best", 4, 0)
    assert election.accepted == ["a", "b"]
    assert any(f"{size} shared samples are few" in one for one in election.warnings) == warned


def test_nothing_but_noise_is_an_error() -> None:
    rng = np.random.default_rng(2)
    features = {name: rng.normal(size=(60, 16)).astype(np.float32) for name in "abc"}
    with pytest.raises(ParticipantError, match="nothing to align to"):
        elect(features, "best", 4, 0)


def test_one_participant_is_its_own_reference() -> None:
    election = elect({"only": noise(10)}, "best", 4, 0)
    assert (election.reference, election.warnings) == ("only", [])


def test_an_election_of_nobody_is_refused() -> None:
    features = {"a": np.zeros((8, 2), np.float32), "b": np.zeros((8, 2), np.float32)}
    fine = Election(CONSENSUS, "a", ["a", "b"], {}, [])
    assert elected(fine, features) == fine
    for changed in ({"reference": "c"}, {"best": "c"}, {"accepted": ["a", "c"]}):
        with pytest.raises(ConfigError, match="names c, but there are a, b"):
            elected(replace(fine, **changed), features)


def test_among_sixty_noise_is_neither_accepted_nor_elected() -> None:
    rng = np.random.default_rng(3)
    causes = rng.normal(size=(40, 5))
    features = {
        f"sound-{k}": (causes @ rng.normal(size=(5, 12)) + 4.0).astype(np.float32)
        for k in range(45)
    }
    features |= {f"noise-{k}": rng.normal(size=(40, 64)).astype(np.float32) for k in range(15)}
    election = elect(features, "best", 4, 0)
    assert election.accepted == [name for name in features if name.startswith("sound")]
    assert min(election.uniformity, key=lambda name: election.uniformity[name]).startswith("noise")
    assert election.reference.startswith("sound")
    assert election == elect(features, "best", 4, 0)
