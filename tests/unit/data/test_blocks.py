"""Blocks contain every id once, units also audit ids; the shared set is a seeded subset."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopt_fl.core.errors import DataError
from coopt_fl.data.blocks import make_blocks, make_units, shared_set

SEEDS = st.integers(0, 2**40)


@given(st.lists(st.integers(0, 10**12), unique=True, max_size=200), st.integers(1, 300), SEEDS)
def test_every_id_once_in_blocks_of_the_size_asked(
    ids: list[int], block_rows: int, seed: int
) -> None:
    blocks = make_blocks(np.array(sorted(ids), np.int64), block_rows, seed)
    assert sorted(id for block in blocks for id in block.tolist()) == sorted(ids)
    assert all(len(block) == block_rows for block in blocks[:-1])
    assert all(0 < len(block) <= block_rows for block in blocks)
    assert all((np.diff(block) > 0).all() and block.dtype == np.int64 for block in blocks)


def test_blocks_are_a_random_choice_that_the_seed_repeats() -> None:
    ids = np.arange(10_000)
    first = make_blocks(ids, 1000, 3)
    assert all(map(np.array_equal, first, make_blocks(ids, 1000, 3)))
    assert not np.array_equal(first[0], make_blocks(ids, 1000, 4)[0])
    # The mean of 1,000 of 10,000 places without replacement has standard deviation 87.
    means = [block.mean() for block in first]
    assert np.abs(np.array(means) - 4999.5).max() < 5 * 87


@given(
    st.lists(st.integers(0, 10**12), unique=True, max_size=200),
    st.integers(1, 300),
    st.floats(0, 0.5),
    SEEDS,
)
def test_a_unit_is_its_block_and_some_of_the_others(
    ids: list[int], block_rows: int, fraction: float, seed: int
) -> None:
    blocks = make_blocks(np.array(sorted(ids), np.int64), block_rows, seed)
    units = make_units(blocks, fraction, seed)
    assert len(units) == len(blocks)
    for block, unit in zip(blocks, units, strict=True):
        own = set(block.tolist())
        audit = set(unit.tolist()) - own
        assert own <= set(unit.tolist()) <= set(ids)
        assert len(unit) == len(own) + len(audit) and unit.dtype == np.int64
        assert len(audit) == min(math.ceil(fraction * len(block)), len(ids) - len(block))
        assert (np.diff(unit) > 0).all()
    assert all(map(np.array_equal, units, make_units(blocks, fraction, seed)))


def test_without_audit_or_others_a_unit_is_its_block() -> None:
    blocks = make_blocks(np.arange(100), 30, 0)
    assert all(map(np.array_equal, make_units(blocks, 0, 0), blocks))
    assert np.array_equal(make_units(blocks[:1], 0.5, 0)[0], blocks[0])


def test_each_block_draws_for_itself() -> None:
    blocks = [np.arange(100), np.arange(100, 200)]
    first, second = make_units(blocks, 0.2, 0)
    assert not np.array_equal(first[first >= 100] - 100, second[second < 100])


def test_audit_ids_are_a_fair_draw_that_the_seed_repeats() -> None:
    """Every id of other blocks is drawn equally often; each block and each seed draws anew."""
    blocks = make_blocks(np.arange(300), 100, 0)
    drawn = [
        np.setdiff1d(unit, block)
        for seed in range(200)
        for block, unit in zip(blocks, make_units(blocks, 0.2, seed), strict=True)
    ]
    assert len({audit.tobytes() for audit in drawn}) == 600
    times = np.bincount(np.concatenate(drawn), minlength=300)
    # 400 draws of 20 among 200 that an id stands in: 40 times, with standard deviation 6.
    assert np.abs(times - 40).max() < 5 * 6
    assert abs(times[:150].sum() - times[150:].sum()) < 5 * 6 * np.sqrt(300)


@given(st.integers(4, 100), st.data(), SEEDS)
def test_shared_set_is_a_part_of_the_size_asked(rows: int, data: st.DataObject, seed: int) -> None:
    ids = np.arange(rows, dtype=np.int64) * 7
    size = data.draw(st.integers(4, rows))
    shared = shared_set(ids, size, seed)
    assert len(shared) == size and (np.diff(shared) > 0).all()
    assert np.isin(shared, ids).all()
    assert np.array_equal(shared, shared_set(ids, size, seed))


def test_shared_set_depends_on_the_seed_and_is_fair() -> None:
    ids = np.arange(1000)
    draws = np.stack([shared_set(ids, 100, seed) for seed in range(50)])
    assert len({draw.tobytes() for draw in draws}) == 50
    # 5,000 draws, each with standard deviation 289.
    assert abs(draws.mean() - 499.5) < 5 * 289 / np.sqrt(draws.size)


@pytest.mark.parametrize("size", [0, 3, 11])
def test_shared_set_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(DataError, match=rf"shared\.size={size} .* 10 images.* at least 4 .* 10"):
        shared_set(np.arange(10), size, 0)
