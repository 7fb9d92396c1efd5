"""Who optimizes which blocks: decided before any work, from the weights alone."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np


def assign_blocks(total: int, weights: Sequence[float]) -> list[int]:
    """Return the owner (index into ``weights``) of each of ``total`` blocks.

    Owners get consecutive blocks, which is as random as the permutation that the blocks were cut
    from. Counts follow the weights by largest remainder, earlier participants first on a tie.
    """
    quotas = np.asarray(weights, np.float64) / np.sum(weights) * total
    counts = np.floor(quotas).astype(int)
    order = np.argsort(counts - quotas, kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return np.repeat(np.arange(len(weights)), counts).tolist()


MOST_BLOCKS = 4096
"""In a chunk, for each has some words besides its arrays."""


def take_chunk(left: deque[int], rows: Callable[[int], int], most_rows: int) -> list[int]:
    """Take blocks off the front of ``left``, as many as have at most ``most_rows`` together.

    A first block that is larger than that makes a chunk of its own. No chunk has more than
    ``MOST_BLOCKS``.

    Args:
        left: indexes of blocks; it is changed.
        rows: tells how many rows a block has.
        most_rows: of a chunk.
    """
    chunk = [left.popleft()] if left else []
    filled = sum(map(rows, chunk))
    while left and len(chunk) < MOST_BLOCKS and filled + rows(left[0]) <= most_rows:
        chunk.append(left.popleft())
        filled += rows(chunk[-1])
    return chunk


def hand_over(blocks: Sequence[int], heirs: Mapping[str, float]) -> list[str]:
    """Return the new owner of each of ``blocks``: names in ``heirs``, in proportion to weights."""
    names = list(heirs)
    return [names[owner] for owner in assign_blocks(len(blocks), list(heirs.values()))]
