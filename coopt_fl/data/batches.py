"""Blocks of ids in, batches of images out, decoded in worker processes where that pays off."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.data.reading import Fit, Reading, read_batch
from coopt_fl.data.source import Source
from coopt_fl.data.workers import read_in_workers

WORKERS_PAY_OFF_S = 10.0
"""Seconds of decoding from which starting worker processes (some seconds) is worth it."""

WARM_UP = 2
"""Batches read here before that is decided: the first opens files, the second is timed."""

MOST_WORKERS = 4


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images of one block.

    Attributes:
        ids: int64 (B,), in the block's order.
        images: uint8 (B, 3, H, W) where all have one size, else B tensors (3, H, W).
        skipped: ids that were asked for, but whose images cannot be decoded.
    """

    ids: NDArray[np.int64]
    images: Tensor | list[Tensor]
    skipped: tuple[int, ...]


def batches(
    source: Source,
    blocks: Sequence[NDArray[np.int64]],
    batch_size: int,
    on_error: str = "raise",
    workers: int | None = None,
    fit: Fit | None = None,
) -> Iterator[Batch]:
    """Walk the blocks in order; a batch never crosses a block.

    Args:
        source: where the images are.
        blocks: ids (R,) of each block.
        batch_size: most images in a batch; only the last of a block has fewer.
        on_error: "raise", or "skip" to leave a corrupt image out and name it in ``skipped``.
        workers: worker processes; 0 decodes here; None times the first batches and decides.
            The batches are the same either way.
        fit: what becomes of each image where it is read, such as shrinking: then only what is left
            of it travels between processes.

    Raises:
        CorruptImage: an image cannot be decoded and ``on_error`` is "raise".
        DataError: the source or a worker process failed.
    """
    plan = [ids for block in blocks for ids in _cut(block, batch_size)]
    for reading in _readings(source, plan, workers, fit):
        if reading.failures and on_error != "skip":
            raise reading.failures[0]
        skipped = tuple(failure.id for failure in reading.failures)
        yield Batch(reading.ids, reading.images(), skipped)


def _cut(block: NDArray[np.int64], rows: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(block), rows):
        yield block[start : start + rows]


def _readings(
    source: Source, plan: Sequence[NDArray[np.int64]], workers: int | None, fit: Fit | None
) -> Iterator[Reading]:
    if workers is None:
        seconds = 0.0
        for ids in plan[:WARM_UP]:
            started = time.perf_counter()
            reading = read_batch(source, ids, fit)
            seconds = time.perf_counter() - started
            yield reading
        plan = plan[WARM_UP:]
        workers = _workers(source, seconds * len(plan))
    if workers and plan:
        yield from read_in_workers(source, plan, workers, fit)
    else:
        yield from (read_batch(source, ids, fit) for ids in plan)


def _workers(source: Source, seconds: float) -> int:
    """Return how many worker processes ``seconds`` of reading are worth."""
    if not source.encoded or seconds < WORKERS_PAY_OFF_S:
        return 0
    return min(MOST_WORKERS, os.cpu_count() or 1)
