"""The laboratory of the experiments: planted cases whose outcome is known."""

import numpy as np
import pytest

from coopt_fl.targets import uniformity
from experiments.lab import Lab, elected
from experiments.recipe import balanced, phi_s, scaled
from experiments.scales import SCALES

(STUDY,) = SCALES["smoke"].values()


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(STUDY)


def test_participants_with_the_same_prior_agree(lab: Lab) -> None:
    same = [STUDY.priors[0]] * 3
    alone = lab.collaborate(0, priors=same)
    assert min(alone.r2) > 0.99
    averaged = lab.collaborate(0, priors=same, replicas=3)
    np.testing.assert_allclose(averaged.targets, alone.targets, atol=1e-5)
    assert averaged.preparation["sum"] > 2 * alone.preparation["sum"] - 3 * alone.align


def test_each_participant_makes_the_targets_of_its_own_shard(lab: Lab) -> None:
    made = lab.collaborate(0)
    assert sorted(np.bincount(made.participants)) == [106, 107, 107]
    at = lab.shared(STUDY.shared, 0)
    for k, on_s in enumerate(made.on_s):
        mine = made.participants[at] == k
        np.testing.assert_allclose(on_s[mine], made.targets[at][mine], atol=1e-5)


def test_elections() -> None:
    rng = np.random.default_rng(0)
    narrow = rng.normal(1.0, 0.01, (64, 8)).astype(np.float32)
    wide = rng.normal(0.0, 1.0, (64, 8)).astype(np.float32)
    assert uniformity(wide) < uniformity(narrow)
    assert elected([narrow, wide], "best", 0) == 1
    assert elected([narrow, wide], "worst", 0) == 0


def test_every_priors_targets_have_the_same_scale(lab: Lab) -> None:
    made = lab.every_prior(0, share=0.5)
    assert made.targets.shape == (160, 3 * STUDY.dim)
    for teacher in np.split(made.targets, 3, axis=1):
        assert np.sqrt(np.square(teacher).mean()) == pytest.approx(1, abs=1e-4)


def test_a_student_sees_only_the_rows_that_have_targets(lab: Lab) -> None:
    made = lab.every_prior(0, share=0.5)
    half = lab.student(made, 0, epochs=2)
    assert half["curve"][-1]["samples"] == 2 * 128  # whole batches of 64 only


def test_shards_by_weight_are_disjoint_and_in_proportion(lab: Lab) -> None:
    shards = lab.shards(3, 0, [2.0, 1.0, -0.5])
    assert [len(rows) for rows in shards] == [213, 107, 0]
    assert sorted(np.concatenate(shards)) == list(range(320))
    assert lab.collaborate(0, by_r2=True).targets.shape == (320, STUDY.dim)


def test_phi_s_gives_every_entry_the_same_variance_and_keeps_angles(lab: Lab) -> None:
    made = lab.collaborate(0)
    before, after = scaled(made.targets), phi_s(made).targets
    np.testing.assert_allclose(after.var(axis=0), 1, atol=1e-3)
    np.testing.assert_allclose(after @ after.T, before @ before.T, atol=1e-2)


def test_normalised_participants_have_the_same_moments(lab: Lab) -> None:
    made = balanced(lab.collaborate(0))
    for owner in range(3):
        mine = made.targets[made.participants == owner]
        np.testing.assert_allclose(mine.mean(axis=0), 0, atol=1e-4)
        assert np.square(mine).mean() == pytest.approx(1, abs=1e-3)
