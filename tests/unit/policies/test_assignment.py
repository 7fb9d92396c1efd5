"""Shards and chunks, for any number of blocks and participants."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from coopt_fl.policies.assignment import Member, Proportional
from coopt_fl.strategies.payloads import MOST_BLOCKS, first_chunk

weights = st.lists(st.floats(0.01, 100), min_size=1, max_size=12)


@given(st.integers(0, 300), weights)
def test_every_block_has_one_owner_and_counts_follow_the_weights(
    total: int, weights: list[float]
) -> None:
    members = [Member(str(index), weight) for index, weight in enumerate(weights)]
    owners = Proportional()(range(total), members)
    assert len(owners) == total
    for member in members:
        quota = total * member.weight / sum(weights)
        assert abs(owners.count(member.name) - quota) < 1 + 1e-9


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_chunks_keep_the_order_and_the_bound(rows: list[int], most: int) -> None:
    sizes = dict(enumerate(rows, start=100))
    left, chunks = list(sizes), list[list[int]]()
    while left:
        chunks.append(first_chunk(left, sizes.__getitem__, most))
        left = left[len(chunks[-1]) :]
    assert [block for chunk in chunks for block in chunk] == list(sizes)
    for chunk in chunks:
        assert len(chunk) == 1 or sum(sizes[block] for block in chunk) <= most
    for chunk, following in itertools.pairwise(chunks):
        assert sum(sizes[block] for block in chunk) + sizes[following[0]] > most


def test_a_chunk_has_no_more_blocks_than_words_can_be_said_of() -> None:
    left = list(range(2 * MOST_BLOCKS + 1))
    assert first_chunk(left, lambda block: 1, 10**9) == left[:MOST_BLOCKS]


def test_nothing_left_makes_no_chunk() -> None:
    assert first_chunk([], {}.__getitem__, 5) == []


def test_blocks_are_handed_over_by_weight() -> None:
    owners = Proportional()([3, 9, 11, 12], [Member("ann", 3.0), Member("bob", 1.0)])
    assert sorted(owners) == ["ann", "ann", "ann", "bob"]


def test_nobody_gets_more_for_boasting() -> None:
    """A speed counts as at most 20 times the median."""
    members = [Member("ann", speed=1.0), Member("bob", speed=1.0), Member("eve", speed=1e6)]
    assert Proportional("speed")(range(22), members).count("eve") == 20


def test_equal_weights_share_equally() -> None:
    assert Proportional()(range(7), [Member(name) for name in "abc"]) == list("aaabbcc")
