"""Read blocks of ids as batches of images, decoded in worker processes if that pays off.

Workers are started by a fork server. Forking this process would copy its threads' locks (Ray,
OpenMP, CUDA), and spawning would import torch for each worker; the server imports it once.
"""

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coopt_fl.core.errors import DataError
from coopt_fl.core.host import cores, free_memory, free_shared_memory
from coopt_fl.data.source import CorruptImage, Source

WORKERS_PAY_OFF_S = 10.0
"""Seconds of decoding from which starting worker processes (some seconds) is worth it."""

WARM_UP = 2
"""Batches read here before workers may start: the first opens files, the second is timed."""

WORKER_BYTES = 200 << 20
"""Memory of a worker besides its batches: the pages that it does not share with the server."""

BATCHES_OF_A_WORKER = 2
"""Batches that a worker prefetches, in memory shared with this process."""

Ids = NDArray[np.int64]
Fit = Callable[[Tensor], Tensor]
"""Transforms an image in the process that reads it: uint8 (1, 3, H, W) to uint8 (1, 3, h, w)."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images of one block.

    All images are in one tensor, so that it costs one file descriptor to pass them between
    processes.

    Attributes:
        ids: int64 (B,), in the block's order.
        pixels: uint8, the images (H, W, 3) one after the other.
        sizes: int64 (B, 2), height and width of each image.
        skipped: requested ids whose images cannot be decoded.
    """

    ids: Ids
    pixels: Tensor
    sizes: NDArray[np.int64]
    skipped: tuple[int, ...]

    @property
    def images(self) -> Tensor | list[Tensor]:
        """The images: uint8 (B, 3, H, W) if all have one size, else B tensors (3, H, W)."""
        if len(self.ids) and (self.sizes == self.sizes[0]).all():
            return self.pixels.view(-1, *self.sizes[0].tolist(), 3).permute(0, 3, 1, 2)
        runs = self.pixels.split((3 * self.sizes.prod(axis=1)).tolist())
        pairs = zip(runs, self.sizes.tolist(), strict=True)
        return [run.view(*size, 3).permute(2, 0, 1) for run, size in pairs]


Read = Callable[[Ids], Batch]


def batches(
    source: Source,
    blocks: Sequence[Ids],
    batch_size: int,
    on_error: str = "raise",
    workers: int | None = None,
    fit: Fit | None = None,
    busy: int = 1,
) -> Generator[Batch, None, None]:
    """Read the blocks in order; a batch never crosses the border of a block.

    Args:
        source: the source of the images.
        blocks: ids (R,) of each block.
        batch_size: most images in a batch; only the last of a block has fewer.
        on_error: "raise", or "skip" to leave a corrupt image out and list it in ``skipped``.
        workers: worker processes; 0 decodes here; None times the first batches and decides.
            The batches are the same either way.
        fit: applied to each image in the process that reads it. If it shrinks images, less data
            is passed between processes.
        busy: cores that the caller itself needs; workers get the others.

    Raises:
        CorruptImage: an image cannot be decoded and ``on_error`` is "raise".
        DataError: the source or a worker process failed.
    """
    plan = [
        block[start : start + batch_size]
        for block in blocks
        for start in range(0, len(block), batch_size)
    ]
    read = partial(read_batch, source, on_error, fit)
    if workers is None:
        seconds = 0.0
        for ids in plan[:WARM_UP]:
            started = time.perf_counter()
            batch = read(ids)
            seconds = time.perf_counter() - started
            yield batch
        plan = plan[WARM_UP:]
        pays_off = source.encoded and seconds * len(plan) >= WORKERS_PAY_OFF_S
        workers = most_workers(batch.pixels.nbytes, busy) if pays_off else 0
    if workers and plan:
        yield from read_in_workers(read, plan, workers)
    else:
        yield from map(read, plan)


def most_workers(batch_bytes: int, busy: int) -> int:
    """Return how many workers fit into the free cores, memory and shared memory.

    Half of the memory is left to others. 0: only the caller's core is free.
    """
    ahead = BATCHES_OF_A_WORKER * batch_bytes
    room = free_memory() // 2 // (WORKER_BYTES + ahead), free_shared_memory() // 2 // max(ahead, 1)
    return max(0, min(cores() - busy, *room))


def read_batch(source: Source, on_error: str, fit: Fit | None, ids: Ids) -> Batch:
    """Read ``ids``; image files one by one, so that only one is in memory at full size."""
    images, skipped = list[Tensor](), list[int]()
    parts = deque(ids[:, None] if source.encoded else [ids])
    while parts:
        part = parts.popleft()
        try:
            read = source.read(part)
        except CorruptImage:
            if on_error != "skip":
                raise
            if len(part) > 1:  # read them one by one, to find the corrupt ones
                parts.extendleft(part[::-1, None])
            else:
                skipped += part.tolist()
        else:
            images += read if fit is None else [_fitted(image, fit) for image in read]
    ids = ids[~np.isin(ids, skipped)]
    runs = [image.permute(1, 2, 0).reshape(-1) for image in images]
    pixels = torch.cat(runs) if runs else torch.empty(0, dtype=torch.uint8)
    sizes = np.array([image.shape[1:] for image in images], dtype=np.int64).reshape(-1, 2)
    return Batch(ids, pixels, sizes, tuple(skipped))


def _fitted(image: Tensor, fit: Fit) -> Tensor:
    """Return the fitted image as uint8 (3, h, w); a GPU resizes to floats."""
    fitted = fit(image[None])[0]
    return fitted if fitted.dtype == torch.uint8 else fitted.round().to(torch.uint8)


def read_in_workers(read: Read, plan: Sequence[Ids], workers: int) -> Iterator[Batch]:
    """Read each batch of ``plan``, in order, in ``workers`` processes.

    Raises:
        DataError: a worker raised it, or a worker died.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["__main__", "torch", __name__, "coopt_fl.data.sources.parquet"])
    loader = DataLoader(
        _Reader(read),
        batch_size=None,
        sampler=plan,
        num_workers=workers,
        prefetch_factor=BATCHES_OF_A_WORKER,
        multiprocessing_context=server,
        worker_init_fn=_die_with_parent,
    )
    try:
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            # Shared memory and its descriptors are scarce, and the caller may keep the batch.
            yield replace(batch, pixels=batch.pixels.clone())
    except (RuntimeError, EOFError, ConnectionError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a process that decodes images died ({str(error) or type(error).__name__}); free some "
            'memory, or put the work of your own script under `if __name__ == "__main__":`'
        ) from error


@dataclass(frozen=True)
class _Reader(Dataset[Batch | DataError]):
    """Reads the ids of a batch in a worker.

    Errors are returned, not raised: a DataLoader rebuilds a raised error from its message alone.
    """

    read: Read

    def __getitem__(self, ids: Ids) -> Batch | DataError:
        try:
            batch = self.read(ids)
        except DataError as error:
            return error
        try:
            batch.pixels.share_memory_()  # done here, as the queue's thread swallows errors
        except RuntimeError as error:
            return DataError(
                f"no shared memory is left for decoded images ({error}); enlarge /dev/shm "
                "(docker run --shm-size=2g) or choose a smaller batch size"
            )
        return batch


def _die_with_parent(_: int) -> None:
    """End this worker when the caller's process is killed, which the fork server survives."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
