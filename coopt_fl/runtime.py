"""Where and how this process computes: device, threads, determinism."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from threadpoolctl import threadpool_limits


def pick_device() -> torch.device:
    """Return the first GPU that this process may use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def compute(threads: int, deterministic: bool = False) -> Iterator[None]:
    """Compute with ``threads`` CPU threads, whatever the environment says.

    The number of threads changes the order of sums and so the last bits of a result. Ray sets it
    by the size of an actor, so it is set here, around every computation that must be repeatable.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads), _deterministic() if deterministic else nullcontext():
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Use deterministic kernels only; torch imports its compiler for this, which takes seconds."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
