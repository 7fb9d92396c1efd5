"""How many cores and how much memory of the host this process may use."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHARE = "LOKY_MAX_CPU_COUNT"
"""Joblib's environment variable that limits the cores of a process and of its children."""

SHARED_MEMORY = Path("/dev/shm")


def cores() -> int:
    """Return how many cores this process may use: by affinity, container limit and ``SHARE``."""
    from joblib import cpu_count  # takes a second, needed only before workers are started

    return int(cpu_count())


@contextmanager
def shared_by(processes: int) -> Iterator[None]:
    """Limit this process, and each that it starts, to 1 / ``processes`` of the cores."""
    if processes == 1:
        yield
        return
    before = os.environ.get(SHARE)
    os.environ[SHARE] = str(max(1, cores() // processes))
    try:
        yield
    finally:
        if before is None:
            del os.environ[SHARE]
        else:
            os.environ[SHARE] = before


def free_memory() -> int:
    """Return the bytes of memory that processes can still use; on other systems than Linux, all.

    A container's limit counts in full: how much of its current use could be freed is unknown.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # without a limit it says "max"
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found)


def free_shared_memory() -> int:
    """Return the free bytes of shared memory, of which a container has little by default."""
    with suppress(OSError):
        return shutil.disk_usage(SHARED_MEMORY).free
    return free_memory()
