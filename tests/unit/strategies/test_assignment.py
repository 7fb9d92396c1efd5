"""Shards and chunks, for any number of blocks and participants."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from strategies.assignment import assign_blocks, chunk_blocks

weights = st.lists(st.floats(0.01, 100), min_size=1, max_size=12)


@given(st.integers(0, 300), weights)
def test_every_block_has_one_owner_and_counts_follow_the_weights(
    total: int, weights: list[float]
) -> None:
    owners = assign_blocks(total, weights)
    assert len(owners) == total
    for index, weight in enumerate(weights):
        quota = total * weight / sum(weights)
        assert abs(owners.count(index) - quota) < 1 + 1e-9


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_chunks_keep_the_order_and_the_bound(rows: list[int], most: int) -> None:
    blocks = list(range(100, 100 + len(rows)))
    chunks = chunk_blocks(blocks, rows, most)
    assert [block for chunk in chunks for block in chunk] == blocks
    sizes = dict(zip(blocks, rows, strict=True))
    for chunk in chunks:
        assert len(chunk) == 1 or sum(sizes[block] for block in chunk) <= most
    for chunk, following in itertools.pairwise(chunks):
        assert sum(sizes[block] for block in chunk) + sizes[following[0]] > most


def test_equal_weights_share_equally() -> None:
    assert assign_blocks(7, [1, 1, 1]) == [0, 0, 0, 1, 1, 2, 2]
