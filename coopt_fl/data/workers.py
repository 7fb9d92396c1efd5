"""Reading batches in worker processes.

They come from a fork server: forking this process would copy its threads' locks (Ray, OpenMP,
CUDA), and spawning would import torch again for each worker, where the server did it once.
"""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from coopt_fl.core.errors import DataError
from coopt_fl.data.reading import Fit, Reading, read_batch
from coopt_fl.data.source import Source

_SERVER_IMPORTS = ["__main__", "torch", "coopt_fl.data.workers", "coopt_fl.data.sources.parquet"]


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
