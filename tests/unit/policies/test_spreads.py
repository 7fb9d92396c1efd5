"""The test of a payload's spread: odd ones are found, and chance or copied images accuse nobody."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from coopt_fl.policies.evidence import Expected
from coopt_fl.policies.spreads import odd_spread
from tests.unit.policies.test_audit import LIES, world

Targets = NDArray[np.floating]


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scaled_targets_have_an_odd_spread(factor: float) -> None:
    seen = {64: 0, 200: 0, 1000: 0}
    for seed in range(20):
        run = world(seed=seed)
        for name, known in run.expected.items():
            for rows in seen:
                said = factor * run.targets[name][:rows]
                seen[rows] += "times as wide" in str(odd_spread(said, known))
    assert seen[64] >= 76
    assert seen[200] == seen[1000] == 80


@pytest.mark.parametrize(
    ("lie", "evidence"),
    [
        ("constant, off the mean", "1 different"),
        ("ten values", "10 diff"),
        ("on a line", "1.0 dim"),
    ],
)
def test_collapsed_targets_have_an_odd_spread(lie: str, evidence: str) -> None:
    run, rng = world(), np.random.default_rng(0)
    said = LIES[lie](rng, run.targets["b"][:150].astype(np.float32))
    assert evidence in str(odd_spread(said, run.expected["b"]))


def test_few_rows_and_alignments_that_predict_nothing_are_not_judged() -> None:
    run = world("abC")
    assert odd_spread(9 * run.targets["b"][:19], run.expected["b"]) is None
    assert odd_spread(9 * run.targets["b"][:20], run.expected["b"]) is not None
    shrunk = run.targets["C"][:100] * np.float16(0.1)
    assert run.expected["C"].r2 < 0.1
    assert odd_spread(shrunk, run.expected["C"]) is None
    assert odd_spread(100 * run.targets["C"][:100], run.expected["C"]) is not None


def test_small_blocks_vary_more() -> None:
    """Distances with a long tail, where medians of 20 rows differ by a factor."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal((4000, 3)) * rng.lognormal(sigma=1.0, size=(4000, 1))
    known = Expected(y[:500], y[:500], 1.0)
    for block in y[500:3500].reshape(-1, 20, 3):
        assert odd_spread(block, known) is None
    assert odd_spread(3 * y[500:], known) is not None


def test_a_block_is_compared_with_the_shared_samples_that_are_like_it() -> None:
    """One region's targets are spread a fifth as widely as all others."""
    rng, alike = np.random.default_rng(0), np.arange(1000) % 4 == 0
    y = rng.standard_normal((1000, 6)) * np.where(alike, 0.2, 1.0)[:, None]
    known, like, block = Expected(y[:200], y[:200], 1.0), alike[:200], y[200:][alike[200:]]
    assert odd_spread(block, known, like) is None
    assert odd_spread(block, known) is not None
    for said in (0.4 * block, 2.5 * block, np.repeat(block[:1], 200, axis=0)):
        assert odd_spread(said, known, like) is not None
    assert odd_spread(9 * block, known, like & (np.arange(200) < 19 * 4)) is None, "too few to tell"


def test_few_shared_samples_of_a_region_vary_more() -> None:
    """Distances with a long tail, whose median over 20 shared samples differs by a factor."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal((4000, 3)) * rng.lognormal(sigma=1.0, size=(4000, 1))
    known, block = Expected(y[:3000], y[:3000], 1.0), y[3000:]
    for few in rng.permutation(3000).reshape(-1, 20):
        like = np.isin(np.arange(3000), few)
        assert odd_spread(block, known, like) is None
    assert odd_spread(100 * block, known, like) is not None


Draw = Callable[[np.random.Generator, float, int], Targets]


def some_the_same(rng: np.random.Generator, share: float, rows: int, off: float) -> Targets:
    """Return targets (rows, 16), of which a share nearly equals one that is ``off`` the others."""
    y = rng.standard_normal((rows, 16))
    same = rng.random(rows) < share
    y[same] = off + 0.02 * rng.standard_normal((int(same.sum()), 16))
    return y


COPIES: dict[str, Draw] = {
    "equal": lambda rng, share, rows: np.where(
        rng.random(rows)[:, None] < share, 0.7, rng.standard_normal((rows, 16))
    ),
    "nearly equal": lambda rng, share, rows: some_the_same(rng, share, rows, off=0.7),
    "far from the others": lambda rng, share, rows: some_the_same(rng, share, rows, off=3.0),
    "from few": lambda rng, share, rows: np.random.default_rng(0).standard_normal(
        (max(1, int(1 / share)), 16)
    )[rng.integers(0, max(1, int(1 / share)), rows)],
}


@pytest.mark.parametrize("copies", COPIES)
def test_copied_images_accuse_nobody(copies: str) -> None:
    """Chance decides how many are in a block; held-out targets of copies differ a little."""
    rng, draw = np.random.default_rng(0), COPIES[copies]
    for share, alike, rows in product(
        (0.03, 0.3, 0.5, 0.7, 0.9, 0.98, 1.0), (20, 32, 64, 260), (20, 64, 256, 1500)
    ):
        fitted = draw(rng, share, 260)
        heldout = fitted + rng.choice([0, 0.1]) * rng.standard_normal(fitted.shape)
        like = rng.permutation(260) < alike
        for _ in range(3):
            block = draw(rng, share, rows).astype(np.float16)
            assert odd_spread(block, Expected(fitted, heldout, 1.0), like) is None


def test_who_knows_which_rows_are_looked_at_gains_nothing() -> None:
    """Rows at even distances are honest, all others have one of ten values."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal((4096 + 260, 32))
    block, known = y[260:].astype(np.float16), Expected(y[:260], y[:260], 1.0)
    honest = np.isin(np.arange(4096), np.linspace(0, 4095, 256).astype(int))
    said = np.where(honest[:, None], block, block[rng.integers(0, 10, 4096)])
    assert odd_spread(block, known) is None
    assert "different values" in str(odd_spread(said, known))


@pytest.mark.parametrize("lie", ["constant, off the mean", "ten values", "on a line"])
def test_collapsed_targets_of_a_region_are_found(lie: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal((260, 32))
    block, like = rng.standard_normal((256, 32)).astype(np.float32), np.arange(260) < 32
    assert odd_spread(block, Expected(y, y, 1.0), like) is None
    assert odd_spread(LIES[lie](rng, block), Expected(y, y, 1.0), like) is not None


def test_an_alignment_that_predicts_nothing_may_be_as_wide_as_on_the_shared_set() -> None:
    y = np.random.default_rng(0).standard_normal((100, 4))
    assert odd_spread(10 * y, Expected(10 * y, y, 0.0)) is None
    assert odd_spread(10 * y, Expected(y, y, 0.0)) is not None
