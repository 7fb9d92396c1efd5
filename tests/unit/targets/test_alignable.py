from collections.abc import Callable

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

from coopt_fl.errors import ConfigError, PriorError
from coopt_fl.targets import alignability, uniformity
from coopt_fl.targets.alignment import folds


def verdicts(priors: list[np.ndarray], seed: int = 0) -> list[bool]:
    return [one.alignable for one in alignability(priors, seed)]


@pytest.mark.parametrize("rows", [25, 60, 250])
def test_noise_has_the_best_uniformity_but_is_not_alignable(latent: Callable, rows: int) -> None:
    for seed in range(4):
        world = latent(rows, seed=seed)
        priors = [world.seen(m, noise=0.5) for m in (20, 40, 80)]
        priors.append(world.rng.standard_normal((rows, 300)))
        assert int(np.argmin([uniformity(x) for x in priors])) == 3
        assert verdicts(priors, seed) == [True, True, True, False]


def test_noise_alone_passes_less_than_once_in_a_hundred() -> None:
    """Exceeding the largest of 50 permutations only would let some 4 in 100 of these pass."""
    passed = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        passed += sum(verdicts([rng.standard_normal((30, m)) for m in (4, 9, 16)], seed))
    assert passed < 3


def test_two_noises_in_a_majority_of_sound_priors(latent: Callable) -> None:
    world = latent(80)
    sound = [world.seen(15) for _ in range(3)]
    noise = [world.rng.standard_normal((80, 15)) for _ in range(2)]
    assert verdicts([noise[0], *sound, noise[1]]) == [False, True, True, True, False]


def test_half_of_the_others_is_enough(latent: Callable) -> None:
    """Two pairs and a loner: with four others, each of a pair is predicted by one only."""
    one, two = latent(80, seed=1), latent(80, seed=2)
    pairs = [one.seen(10), one.seen(10), two.seen(10), two.seen(10)]
    assert verdicts(pairs) == [False] * 4  # half of three others, rounded up, is two
    assert verdicts(pairs[:3]) == [True, True, False]


def test_r2_is_that_of_kernel_ridge_on_held_out_rows(latent: Callable) -> None:
    world = latent(43)
    x, y = world.seen(9), world.seen(70, noise=0.4)
    xc = x - x.mean(axis=0)
    xc *= np.sqrt(43 / (xc**2).sum())
    predicted = np.empty_like(y)
    for fold in folds(43, 5):
        kept = np.setdiff1d(np.arange(43), fold)
        mean, level = xc[kept].mean(axis=0), y[kept].mean(axis=0)
        within = xc[kept] - mean
        strength = 0.3 * (within**2).sum() / len(kept)
        model = KernelRidge(alpha=strength).fit(within, y[kept] - level)
        predicted[fold] = model.predict(xc[fold] - mean) + level
    expected = 1 - ((y - predicted) ** 2).sum() / ((y - y.mean(axis=0)) ** 2).sum()
    _, evidence = alignability([x, y], seed=5)
    assert evidence.r2 == (pytest.approx(expected, abs=1e-9),)


def test_scale_shift_and_rotation_of_a_prior_do_not_matter(latent: Callable) -> None:
    world = latent(50)
    one, two = world.seen(12), world.seen(8)
    turn = np.linalg.qr(world.rng.standard_normal((8, 8)))[0]
    plain, changed = alignability([one, two]), alignability([one * 1e-20, 1e20 * two @ turn + 1e19])
    for a, b in zip(plain, changed, strict=True):
        np.testing.assert_allclose(a.r2, b.r2, atol=1e-6)
        np.testing.assert_allclose(a.threshold, b.threshold, atol=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e9])
def test_a_collapsed_prior_is_not_alignable_and_predicts_nothing(
    latent: Callable, level: float
) -> None:
    world = latent(50)
    dead = np.full((50, 7), level, np.float32)
    found = alignability([world.seen(10), world.seen(10), dead])
    assert [one.alignable for one in found] == [True, True, False]
    assert found[2].r2 == (0, 0)
    assert found[0].r2[1] < 0.01


def test_one_prior_is_alignable_and_the_seed_decides(latent: Callable) -> None:
    world = latent(30)
    priors = [world.seen(5), world.seen(6)]
    assert verdicts(priors[:1]) == [True]
    assert alignability(priors, 1) == alignability(priors, 1)
    assert alignability(priors, 1) != alignability(priors, 2)


def test_many_rows_are_thinned(latent: Callable) -> None:
    world = latent(5000)
    assert verdicts([world.seen(5), world.seen(6)]) == [True, True]


def test_refuses_what_cannot_be_compared() -> None:
    x = np.random.default_rng(0).standard_normal((10, 3))
    with pytest.raises(ConfigError, match="at least 4"):
        alignability([x[:3], x[:3]])
    with pytest.raises(PriorError, match="same samples"):
        alignability([x, x[:9]])
    with pytest.raises(PriorError, match="not finite"):
        alignability([x, np.where(x > 1, np.nan, x)])
