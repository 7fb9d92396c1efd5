from collections.abc import Callable

import numpy as np
import pytest

from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.targets import uniformity
from coopt_fl.targets.alignable import alignability


def verdicts(priors: list[np.ndarray], seed: int = 0) -> list[bool]:
    return [one.alignable for one in alignability(priors, seed)]


@pytest.mark.parametrize("rows", [13, 25, 60, pytest.param(250, marks=pytest.mark.whole)])
def test_noise_has_the_best_uniformity_but_is_not_alignable(latent: Callable, rows: int) -> None:
    for seed in range(4):
        world = latent(rows, seed=seed)
        priors = [world.seen(m, noise=0.5) for m in (20, 40, 80)]
        priors.append(world.rng.standard_normal((rows, 300)))
        assert int(np.argmin([uniformity(x) for x in priors])) == 3
        assert verdicts(priors, seed) == [True, True, True, False]


def test_noise_passes_as_often_as_it_says() -> None:
    """Among 19 random orders and the true one, the true one is the highest in 1 of 20 pairs."""
    passed = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        one, other = rng.standard_normal((12, 5)), rng.exponential(size=(12, 90))
        passed += alignability([one, other], seed, permutations=19)[0].alignable
    assert 8 <= passed <= 36  # 20 expected; outside once in a thousand


def test_noise_alone_does_not_pass() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert not any(verdicts([rng.standard_normal((13, m)) for m in (4, 9, 16)], seed))


def test_two_noises_in_a_majority_of_sound_priors(latent: Callable) -> None:
    world = latent(80)
    sound = [world.seen(15) for _ in range(3)]
    noise = [world.rng.standard_normal((80, 15)) for _ in range(2)]
    assert verdicts([noise[0], *sound, noise[1]]) == [False, True, True, True, False]


def test_half_of_the_others_is_enough(latent: Callable) -> None:
    """With two pairs and a loner, each prior of a pair resembles only one of the four others."""
    one, two = latent(80, seed=1), latent(80, seed=2)
    pairs = [one.seen(10), one.seen(10), two.seen(10), two.seen(10)]
    assert verdicts(pairs) == [False] * 4  # half of three others, rounded up, is two
    assert verdicts(pairs[:3]) == [True, True, False]


def test_cka_is_that_of_the_unbiased_estimator(latent: Callable) -> None:
    """HSIC by equation 4 of Song et al. 2012, term by term."""
    world = latent(43)
    x, y = world.seen(9), world.seen(70, noise=0.4)

    def hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
        n = len(k)
        k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
        sums = k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * (k @ l).sum() / (n - 2)
        return float(np.trace(k @ l) + sums) / (n * (n - 3))

    k, l = x @ x.T, y @ y.T  # noqa: E741
    expected = hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))
    one, other = alignability([x, y], seed=5)
    assert one.cka == other.cka == (pytest.approx(expected, abs=1e-6),)


def test_the_limit_is_what_chance_reached(latent: Callable) -> None:
    """For unrelated rows CKA is 0 on average, and its maximum over many orders is above 0."""
    rng = np.random.default_rng(0)
    (one, _) = alignability([rng.standard_normal((100, 9)), rng.standard_normal((100, 9))])
    assert abs(one.cka[0]) < one.threshold[0] < 0.2


def test_scale_shift_and_rotation_of_a_prior_do_not_matter(latent: Callable) -> None:
    world = latent(50)
    one, two = world.seen(12), world.seen(8)
    turn = np.linalg.qr(world.rng.standard_normal((8, 8)))[0]
    plain, changed = alignability([one, two]), alignability([one * 1e-20, 1e20 * two @ turn + 1e19])
    for a, b in zip(plain, changed, strict=True):
        np.testing.assert_allclose(a.cka, b.cka, atol=1e-5)
        np.testing.assert_allclose(a.threshold, b.threshold, atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e9])
def test_a_collapsed_prior_is_not_alignable_and_resembles_nothing(
    latent: Callable, level: float
) -> None:
    world = latent(50)
    dead = np.full((50, 7), level, np.float32)
    found = alignability([world.seen(10), world.seen(10), dead])
    assert [one.alignable for one in found] == [True, True, False]
    assert found[2].cka == (0, 0)
    assert found[0].cka[1] == 0


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


def crowd(latent: Callable, sound: int, noise: int, rows: int = 40) -> list[np.ndarray]:
    world = latent(rows)
    priors = [world.seen(5 + k % 9) for k in range(sound)]
    return priors + [world.rng.standard_normal((rows, 9 + k)) for k in range(noise)]


def test_of_many_priors_the_sound_ones_pass_and_noise_does_not(latent: Callable) -> None:
    assert verdicts(crowd(latent, 40, 20)) == [True] * 40 + [False] * 20


def test_of_many_priors_a_large_minority_of_one_mind_does_not_pass(latent: Callable) -> None:
    """Each prior is compared with all others, however few pairs are permuted."""
    shared = np.random.default_rng(1).standard_normal((80, 6))
    priors = crowd(latent, 25, 0, rows=80) + [shared] * 20
    assert verdicts(priors) == [True] * 25 + [False] * 20


def test_a_sample_of_pairs_is_decided_by_the_seed_and_leaves_nobody_out(latent: Callable) -> None:
    priors = crowd(latent, 30, 5)
    found = alignability(priors, 1, most_paired=0)
    assert found == alignability(priors, 1, most_paired=0)
    assert found != alignability(priors, 2, most_paired=0)
    assert all(0 < limit < 1 for one in found for limit in one.threshold)


def test_a_sample_of_pairs_tells_the_same_of_chance(latent: Callable) -> None:
    """The CKA is the same; the thresholds by single priors are close to those by pairs."""
    priors = crowd(latent, 9, 3)
    each, sample = alignability(priors), alignability(priors, most_paired=0)
    for one, other in zip(each, sample, strict=True):
        np.testing.assert_allclose(one.cka, other.cka, atol=1e-5)
        assert 0.8 < np.mean(other.threshold) / np.mean(one.threshold) < 1.5


def test_noise_passes_a_sample_of_pairs_no_more_often(latent: Callable) -> None:
    """Each of six priors has 33 of 39 orders, so two have 66, and noise passes in 1 of 67 pairs."""
    passed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        priors = [rng.standard_normal((12, m)) for m in (5, 7, 9, 30, 60, 90)]
        found = alignability(priors, seed, permutations=39, most_paired=0)
        passed += sum(np.sum(np.array(one.cka) > one.threshold) for one in found) // 2
    assert 1 <= passed <= 60 * 15 / 34
