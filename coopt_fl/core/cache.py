"""The per-user cache, where downloads and copies that make reading fast are kept."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """Return ``$COOPT_CACHE`` where it is set, else ``~/.cache/coopt-fl``; it may not exist yet."""
    chosen = os.environ.get("COOPT_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "coopt-fl"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Let one process at a time work in ``folder``, which is made where it is missing.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the system, even after SIGKILL
        yield
