"""Who optimizes which blocks: decided before any work, from the weights alone."""

from collections.abc import Sequence

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


def chunk_blocks(blocks: Sequence[int], rows: Sequence[int], most_rows: int) -> list[list[int]]:
    """Group ``blocks`` of ``rows`` each, in order, into chunks of at most ``most_rows`` rows.

    A block that is larger than that makes a chunk of its own.
    """
    chunks: list[list[int]] = []
    filled = 0
    for block, size in zip(blocks, rows, strict=True):
        if not chunks or filled + size > most_rows:
            chunks.append([])
            filled = 0
        chunks[-1].append(block)
        filled += size
    return chunks
