"""Blocks of ids in, batches of images out, decoded in worker processes where that pays off.

Workers come from a fork server: forking this process would copy its threads' locks (Ray, OpenMP,
CUDA), and spawning would import torch again for each worker, where the server did it once."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coopt_fl.core.errors import DataError
from coopt_fl.data.source import CorruptImage, Source

Fit = Callable[[Tensor], Tensor]
"""What becomes of an image where it is read: uint8 (1, 3, H, W) to uint8 (1, 3, h, w)."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What came of reading some ids.

    The images travel between processes as one tensor, for each tensor takes a file descriptor.

    Attributes:
        ids: int64 (B,) that could be read.
        pixels: uint8, the images (H, W, 3) one after the other.
        sizes: int64 (B, 2), the height and width of each.
        failures: one error for each image that could not be read.
    """

    ids: NDArray[np.int64]
    pixels: Tensor
    sizes: NDArray[np.int64]
    failures: list[CorruptImage]

    def images(self) -> Tensor | list[Tensor]:
        """Return uint8 (B, 3, H, W) where all have one size, else B tensors (3, H, W)."""
        if len(self.ids) and (self.sizes == self.sizes[0]).all():
            return self.pixels.view(-1, *self.sizes[0].tolist(), 3).permute(0, 3, 1, 2)
        runs = self.pixels.split((3 * self.sizes.prod(axis=1)).tolist())
        pairs = zip(runs, self.sizes.tolist(), strict=True)
        return [run.view(*size, 3).permute(2, 0, 1) for run, size in pairs]


def read_batch(source: Source, ids: NDArray[np.int64], fit: Fit | None = None) -> Reading:
    """Read ``ids``; where one is corrupt, read one by one and set the corrupt ones apart."""
    try:
        return _packed(ids, source.read(ids), [], fit)
    except CorruptImage:
        images, failures = {}, []
        for id in ids.tolist():
            try:
                images[id] = source.read(np.array([id]))[0]
            except CorruptImage as error:
                failures.append(error)
        return _packed(np.array(list(images), dtype=np.int64), list(images.values()), failures, fit)


def _packed(
    ids: NDArray[np.int64], images: list[Tensor], failures: list[CorruptImage], fit: Fit | None
) -> Reading:
    if fit is not None:
        images = [fit(image[None])[0] for image in images]
    runs = [image.permute(1, 2, 0).reshape(-1) for image in images]
    pixels = torch.cat([torch.empty(0, dtype=torch.uint8), *runs])
    sizes = np.array([image.shape[1:] for image in images], dtype=np.int64).reshape(-1, 2)
    return Reading(ids, pixels, sizes, failures)


_SERVER_IMPORTS = ["__main__", "torch", "coopt_fl.data.batches", "coopt_fl.data.sources.parquet"]


class _Reader(Dataset[Reading | DataError]):
    """What runs in a worker: a batch's ids in, its reading or what went wrong out.

    Errors are returned, not raised, for a DataLoader rebuilds a raised error from its message.
    """

    def __init__(self, source: Source, fit: Fit | None) -> None:
        self._source, self._fit = source, fit

    def __getitem__(self, ids: NDArray[np.int64]) -> Reading | DataError:
        try:
            reading = read_batch(self._source, ids, self._fit)
        except DataError as error:
            return error
        try:
            reading.pixels.share_memory_()  # here, for the queue's thread would swallow the error
        except RuntimeError as error:
            return DataError(
                f"no shared memory is left for decoded images ({error}); enlarge /dev/shm "
                "(docker run --shm-size=2g) or choose a smaller batch size"
            )
        return reading


def _die_with_parent(_: int) -> None:
    """End this worker when its parent is killed: the fork server, which it watches, lives on."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def read_in_workers(
    source: Source, plan: Sequence[NDArray[np.int64]], workers: int, fit: Fit | None = None
) -> Iterator[Reading]:
    """Read each batch of ``plan``, in order, in ``workers`` processes.

    Raises:
        DataError: what a worker met, or that a worker died.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(_SERVER_IMPORTS)
    loader = DataLoader(
        _Reader(source, fit),
        batch_size=None,
        sampler=plan,
        num_workers=workers,
        multiprocessing_context=server,
        worker_init_fn=_die_with_parent,
    )
    try:
        for reading in loader:
            if isinstance(reading, DataError):
                raise reading
            # A copy, for shared memory and its descriptors are scarce and a reader may keep it.
            yield replace(reading, pixels=reading.pixels.clone())
    except (RuntimeError, EOFError, ConnectionError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a process that decodes images died ({str(error) or type(error).__name__}); free some "
            'memory, or put the work of your own script under `if __name__ == "__main__":`'
        ) from error


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
