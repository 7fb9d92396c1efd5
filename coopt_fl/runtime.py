"""Where and how this process computes: device, threads, determinism."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

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
    before, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict)
