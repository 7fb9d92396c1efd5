"""The experiments' lab on planted cases with known outcomes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from coopt_fl.core import cache
from coopt_fl.core.errors import ConfigError, ParticipantError
from coopt_fl.policies.reference import elect
from coopt_fl.students.models import Student
from coopt_fl.students.objectives import make_objective
from coopt_fl.students.objectives.objective import Objective, Setting
from coopt_fl.targets import represent, uniformity
from experiments.agreement import uniformity_alone
from experiments.lab import Lab
from experiments.ours import balanced, phi_s, scaled
from experiments.paper import ALONE, at_random, elect_anyhow
from experiments.scales import SCALES, studies

(STUDY,) = SCALES["smoke"].values()


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(STUDY)


def test_participants_with_the_same_prior_agree(lab: Lab) -> None:
    same = [STUDY.priors[0]] * 3
    alone = lab.collaborate(0, priors=same)
    assert min(alone.agreed.r2()) > 0.99
    averaged = lab.collaborate(0, priors=same, replicas=3)
    np.testing.assert_allclose(averaged.targets, alone.targets, atol=1e-5)
    assert averaged.optimize == pytest.approx([3 * one for one in alone.optimize])
    asked = 320 + 16  # and one for the audit of each block
    assert averaged.represent == pytest.approx(3 * sum(alone.optimize) * STUDY.shared / asked)


def test_each_participant_makes_the_targets_of_its_own_shard(lab: Lab) -> None:
    made = lab.collaborate(0)
    assert np.bincount(made.participants).tolist() == [120, 100, 100], "blocks of 20"
    at = lab.shared(STUDY.shared, 0)
    for k, on_s in enumerate(made.on_s):
        mine = made.participants[at] == k
        np.testing.assert_allclose(on_s[mine], made.targets[at][mine], atol=1e-5)


def test_of_two_experiments_that_need_the_same_features_one_waits_and_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    came, made, both, exclusive = [], [], threading.Event(), cache.exclusive

    @contextmanager
    def watched(folder: Path) -> Iterator[None]:
        came.append(folder)
        if len(came) == 2:
            both.set()
        with exclusive(folder):
            yield

    def counted(*args, **options):
        assert both.wait(60), "the other one is at the lock, too"
        made.append(represent(*args, **options))
        return made[-1]

    monkeypatch.setenv("COOPT_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "exclusive", watched)
    monkeypatch.setattr("experiments.precomputed.represent", counted)
    labs = [Lab(STUDY), Lab(STUDY)]
    threads = [threading.Thread(target=one.features, args=("trivial:20",)) for one in labs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    (first, seconds), (second, same) = (one.features("trivial:20") for one in labs)
    assert np.array_equal(first, second) and seconds == same


def test_elections() -> None:
    rng = np.random.default_rng(0)
    narrow = rng.normal(1.0, 0.01, (64, 8)).astype(np.float32)
    wide = rng.normal(0.0, 1.0, (64, 8)).astype(np.float32)
    assert uniformity(wide) < uniformity(narrow)
    features = {"narrow": narrow, "wide": wide}
    assert uniformity_alone(features, "best", 4, 0).reference == "wide"
    assert uniformity_alone(features, "best", 4, 0, choose=max).reference == "narrow"
    assert uniformity_alone(features, "consensus", 4, 0).accepted == ["narrow", "wide"]
    assert {at_random(features, "best", 4, seed).reference for seed in range(9)} == set(features)


def test_where_the_platform_finds_no_reference_the_most_uniform_prior_is_one(lab: Lab) -> None:
    with pytest.raises(ParticipantError):
        lab.agree(0, reference="best", shared=5)
    few = lab.agree(0, reference="best", shared=5, elect=elect_anyhow)
    assert few.election.warnings == [ALONE]
    assert few.election.reference == min(few.on_s, key=lambda name: uniformity(few.on_s[name]))
    enough = lab.agree(0, reference="best", elect=elect_anyhow)
    assert enough.election == elect(enough.on_s, "best", STUDY.dim, 0)


def test_every_priors_targets_have_the_same_scale(lab: Lab) -> None:
    made = lab.every_prior(0, share=0.5)
    assert made.targets.shape == (160, 3 * STUDY.dim)
    assert made.parts == (STUDY.dim,) * 3
    for teacher in np.split(made.targets, 3, axis=1):
        assert np.sqrt(np.square(teacher).mean()) == pytest.approx(1, abs=1e-4)


def test_a_student_sees_only_the_rows_that_have_targets(lab: Lab) -> None:
    made = lab.every_prior(0, share=0.5)
    half = lab.student(made, 0, epochs=2)
    assert half["curve"][-1]["samples"] == 2 * 160


def test_every_teacher_has_a_head_unless_whitening_mixes_them(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = []

    def counted(name: str, student: Student, task: Setting, seed: int) -> Objective:
        heads.append(task.parts)
        return make_objective(name, student, task, seed)

    monkeypatch.setattr("coopt_fl.students.loop.make_objective", counted)
    made = lab.every_prior(0)
    for whiten in (False, True):
        lab.student(made, 0, epochs=1, whiten=whiten)
    assert heads == [(STUDY.dim,) * 3, ()]


def test_shards_by_weight_are_disjoint_and_in_proportion(lab: Lab) -> None:
    agreed = lab.agree(0, weights=[2.0, 1.0, -0.5])
    names = list(agreed.features)
    assert [len(agreed.plan.blocks_of(name)) for name in names] == [11, 5, 0]
    assert sorted(np.concatenate([agreed.rows_of(name) for name in names])) == list(range(320))
    same = lab.agree(0).alignments
    assert {name: one.sha256 for name, one in agreed.alignments.items()} == {
        name: one.sha256 for name, one in same.items()
    }
    made = lab.collaborate(0, assign=lambda agreed: {"weights": [1.0, 0.0, 0.0]})
    assert {*made.participants.tolist()} == {0}


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


def test_each_study_has_its_own_folder_where_several_need_one() -> None:
    found = studies("paper", "/data")
    assert found["tiny_imagenet"].data.root == "/data/tiny_imagenet"
    assert found["imagenet"].data.root == "/data/imagenet"
    assert found["cifar10"].data.root is None
    assert studies("gpu", "/data")["cifar10"].data.root == "/data"


def test_a_missing_folder_is_asked_for_only_where_it_is_needed() -> None:
    assert list(studies("cpu", None, "digits")) == ["digits"]
    with pytest.raises(ConfigError, match="--root DIR"):
        studies("cpu", None)
    with pytest.raises(ConfigError, match="digits, cifar10"):
        studies("cpu", None, "imagenet")
