"""Where and how this process computes: device, threads, determinism."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import threadpool_limits

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h

_MOST_KEPT = 1 << 30
"""Bytes at the end of the heap that are kept though they are free."""


def pick_device() -> torch.device:
    """Return the first GPU that this process may use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def devices() -> dict[str, str]:
    """Return the processors that a run would use."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": platform.platform(),
        "CPU cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "GPUs": ", ".join(gpus) or "none: everything runs on the CPU",
    }


def is_first_process() -> bool:
    """Whether this is the first, or only, of the processes that train together."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


@contextmanager
def compute(threads: int, deterministic: bool = False) -> Iterator[None]:
    """Compute with ``threads`` CPU threads, and if asked for with deterministic kernels only.

    The number of threads changes the order of sums and so the last bits of a result. Ray sets it
    by the size of an actor, so it is set here, around every computation that must be repeatable.
    """
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    if deterministic:  # torch imports its compiler for this, which takes seconds
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before[0])
        if deterministic:
            torch.use_deterministic_algorithms(before[1])


@cache
def keep_freed_memory() -> None:
    """Let this process use freed memory again instead of giving it back to the system.

    glibc maps and unmaps large buffers, such as the output of every layer, and the system then
    clears each of their pages anew: a quarter to a half of a forward pass. Only for processes that
    run a model: others, such as the platform, would hold on to memory for nothing. Other C
    libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)
