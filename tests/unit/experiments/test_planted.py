"""Single experiments on planted cases with known outcomes."""

import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from coopt_fl.students.checkpoint import CHECKPOINT
from coopt_fl.students.train import train_student
from experiments import ours
from experiments.continual import SHARDS, kept
from experiments.lab import Lab, Made
from experiments.paper import across
from experiments.scales import SCALES

(STUDY,) = SCALES["smoke"].values()
WORST = 1


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(STUDY)


@pytest.fixture
def cycles(lab: Lab) -> tuple[Made, Made]:
    """Return an old cycle's targets, which are an affine function of a fresh one's."""
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(len(lab.all), STUDY.dim)).astype(np.float32)
    turned = (targets @ rng.normal(size=(STUDY.dim, STUDY.dim)) + 3).astype(np.float32)
    at = lab.shared(STUDY.shared, 0)
    owners = rng.integers(0, SHARDS, len(lab.all)).astype(np.int16)
    old, fresh = (
        Made(lab.all, made, owners, [1.0, 2.0, 4.0], 8.0, 16.0, [made[at]] * SHARDS)
        for made in (turned, targets)
    )
    return old, fresh


def test_old_shards_that_are_left_cost_nothing(cycles: tuple[Made, Made]) -> None:
    old, fresh = cycles
    made = kept(old, fresh, WORST, "left", 0)
    for k in range(SHARDS):
        rows, source = fresh.participants == k, fresh if k == WORST else old
        assert np.array_equal(made.targets[rows], source.targets[rows])
        assert np.array_equal(made.on_s[k], source.on_s[k])
    assert (made.optimize, made.align) == ([2.0], 16.0)


def test_realignment_finds_the_new_terms_and_is_charged(
    cycles: tuple[Made, Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, fresh = cycles
    seconds = count()
    clock = SimpleNamespace(perf_counter=lambda: float(next(seconds)))
    monkeypatch.setattr("experiments.continual.time", clock)
    made = kept(old, fresh, WORST, "realigned", 0)
    np.testing.assert_allclose(made.targets, fresh.targets, atol=1e-2)
    np.testing.assert_allclose(made.on_s, fresh.on_s, atol=1e-2)
    assert (made.optimize, made.align) == ([2.0], 16.0 + (SHARDS - 1))


def test_recomputed_shards_are_all_fresh(cycles: tuple[Made, Made]) -> None:
    old, fresh = cycles
    assert kept(old, fresh, WORST, "recomputed", 0) is fresh


def test_what_no_map_predicts_is_made_anew(cycles: tuple[Made, Made]) -> None:
    old, fresh = cycles
    strange = np.random.default_rng(1).normal(size=old.on_s[0].shape).astype(np.float32)
    old = replace(old, on_s=[old.on_s[0], old.on_s[1], strange])
    made = kept(old, fresh, WORST, "as needed", 0)
    mapped, _, anew = (fresh.participants == k for k in range(SHARDS))
    np.testing.assert_allclose(made.targets[mapped], fresh.targets[mapped], atol=1e-2)
    assert not np.array_equal(made.targets[mapped], fresh.targets[mapped])
    assert np.array_equal(made.targets[anew], fresh.targets[anew])
    assert made.optimize == [2.0, 4.0]
    assert made.align > fresh.align


def principal(x: NDArray[Any], dim: int) -> NDArray[Any]:
    """Return the first principal components of features, scaled together to unit RMS."""
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    scores: NDArray[Any] = u[:, :dim] * s[:dim]
    return scores / np.sqrt(np.square(scores).mean())


def test_a_central_dataset_is_one_priors_principal_components(lab: Lab) -> None:
    spec = STUDY.priors[1]
    x, seconds = lab.features(spec)
    made = lab.centralize(spec, 3)
    fitted = np.concatenate(lab.agree(3, {"central": x}).plan.units)[: 4 * STUDY.dim]
    wanted = principal(x[fitted].astype(np.float64), STUDY.dim)
    np.testing.assert_allclose(np.abs(made.targets[fitted]), np.abs(wanted), atol=1e-3)
    assert made.preparation == (seconds, seconds)
    assert not made.participants.any()


def test_a_prior_narrower_than_a_target_gives_what_it_has(lab: Lab) -> None:
    wide = Lab(replace(STUDY, dim=28))
    assert wide.centralize("trivial:20", 0).targets.shape == (len(lab.all), 20)


def test_targets_of_own_images_are_those_of_the_student_that_learned_them(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained = []

    def train(dataset: None, config: Any, out: Path, **of: Any):
        trained.append((dataset, config.data, config.student.objective, config.seed))
        done = train_student(dataset, config, out, **of)
        shutil.copy(out / CHECKPOINT, tmp_path / "own.pt")
        return done

    monkeypatch.setattr(ours, "train_student", train)
    made = ours.of_own(lab, 1)
    assert [one[:3] for one in trained] == [(None, STUDY.data, "simclr")], "no labels, no targets"
    assert trained[0][3] != 1, "nor with the initial weights of the cell's students"
    x, _ = lab.features(f"checkpoint:{tmp_path / 'own.pt'}")
    x = np.c_[x, np.ones(len(x))].astype(np.float64)
    linear, *_ = np.linalg.lstsq(x, made.targets, rcond=None)
    np.testing.assert_allclose(x @ linear, made.targets, atol=1e-2)


def test_agreement_is_with_the_nearest_of_another_participant() -> None:
    axes, owners = np.eye(3, dtype=np.float32), np.repeat([0, 1], 3).astype(np.int16)
    labels = np.tile(np.arange(3), 2)
    same = np.concatenate([axes, 5 * axes])
    assert across(same, owners, labels) == 1.0, "lengths do not count"
    assert across(np.concatenate([axes, np.roll(axes, 1, axis=0)]), owners, labels) == 0.0
    swapped = np.concatenate([axes, axes[[1, 0, 2]]])
    assert across(swapped, owners, labels) == pytest.approx(1 / 3)
    near = np.concatenate([same, axes[:1]])  # a twin of the first row, and of its own participant
    assert across(near, np.array([*owners, 0], np.int16), np.array([*labels, 2])) == 6 / 7
