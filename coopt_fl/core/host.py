"""What this process may use of its host."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHARE = "LOKY_MAX_CPU_COUNT"
"""Joblib's variable for the most cores of a process, which those that it starts inherit."""

SHARED_MEMORY = Path("/dev/shm")


def cores() -> int:
    """Return the cores that this process may use.

    That is by its affinity, by the limit of its container, and by its share of the host.
    """
    from joblib import cpu_count  # takes a second, which only those who start workers should wait

    return int(cpu_count())


@contextmanager
def shared_by(processes: int) -> Iterator[None]:
    """Leave to this process, and each that it starts, one of so many equal shares of the cores."""
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
    """Return the bytes that processes could still use, as Linux tells it; elsewhere all there are.

    A container's limit counts whole, as nobody tells how much of what it uses could be freed.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # without a limit it says "max"
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found)


def free_shared_memory() -> int:
    """Return the bytes that processes can still exchange in memory; a container has few."""
    with suppress(OSError):
        return shutil.disk_usage(SHARED_MEMORY).free
    return free_memory()
