"""The per-user cache: downloads, and copies that make reading fast. All of it can be rebuilt.

Copies of Parquet images, downloaded shards, maps of targets and regions together take at most
``$COOPT_CACHE_GB`` gigabytes, 20 by default: adding one evicts the least recently used files. A
process that has an evicted file open can still read it; a process that misses one rebuilds it.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from coopt_fl.core.errors import ConfigError, OutputError

LIMITED = ("parquet", "shards", "targets", "regions")
"""The folders of the cache whose size together is limited."""

_UNUSABLE = (OSError, ValueError, EOFError)

T = TypeVar("T")


def cache_dir() -> Path:
    """Return ``$COOPT_CACHE`` if it is set, else ``~/.cache/coopt-fl``; it may not exist yet.

    Raises:
        OutputError: there is no home directory.
    """
    chosen = os.environ.get("COOPT_CACHE", "~/.cache/coopt-fl") or "~/.cache/coopt-fl"
    try:
        return Path(chosen).expanduser()
    except RuntimeError:
        raise OutputError(
            "there is no home directory for the cache: set COOPT_CACHE, or HOME, to a folder that "
            "can be written"
        ) from None


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Let one process at a time work in ``folder``, which is created if it is missing.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the system, even after SIGKILL
        yield


def cached(path: Path, load: Callable[[], T], make: Callable[[Path], object]) -> T:
    """Return what ``load`` reads from ``path`` in the cache, after making it if necessary.

    Processes that make something in the same parent folder wait for each other.

    Args:
        path: a file, or a folder of files.
        load: raises OSError, ValueError or EOFError if ``path`` is missing or damaged.
        make: writes the file or folder at the temporary path that it is given, which is then
            renamed to ``path``. So ``path`` is whole or absent however the process ends.

    Raises:
        ConfigError: ``COOPT_CACHE_GB`` is not a number.
        OutputError: the cache has no room for it, or cannot be written.
    """
    limit = _limit_bytes()
    temporary = path.with_name(f".{path.name}.tmp")
    with suppress(OSError):  # the cache may be read-only
        for file in _files(path):
            os.utime(file)  # eviction goes by the modification time, which records the last use
    with suppress(*_UNUSABLE):
        return load()
    try:
        with exclusive(path.parent):
            with suppress(*_UNUSABLE):  # another process may have made it meanwhile
                return load()
            try:
                _remove(temporary)  # left by a process that was killed
                make(temporary)
                for file in _files(temporary):
                    with file.open("rb") as made:
                        os.fsync(made.fileno())
                _remove(path)
                temporary.replace(path)
            finally:
                _remove(temporary)
            loaded = load()
    except OSError as error:
        raise OutputError(
            f"cannot keep {path} ({error.strerror or error}); "
            "set COOPT_CACHE to a folder with room for it"
        ) from error
    with suppress(OSError):  # another process may be evicting the same files
        _evict(limit, path)
    return loaded


def _limit_bytes() -> float:
    given = os.environ.get("COOPT_CACHE_GB", "20")
    with suppress(ValueError):
        if float(given) >= 0:
            return float(given) * 1e9
    raise ConfigError(
        f"COOPT_CACHE_GB={given} is no number of gigabytes; set it to one, such as 20"
    )


def _evict(limit: float, newest: Path) -> None:
    """Delete the least recently used files, except ``newest``, until ``limit`` bytes are left."""
    stats = {file: file.stat() for kind in LIMITED for file in _files(cache_dir() / kind)}
    total = sum(stat.st_size for stat in stats.values())
    for file in sorted(stats, key=lambda file: stats[file].st_mtime_ns):
        if total > limit and not file.is_relative_to(newest):
            total -= stats[file].st_size
            file.unlink(missing_ok=True)
            with suppress(OSError):
                file.parent.rmdir()  # if that was the last one in it


def _files(path: Path) -> list[Path]:
    """Return the file ``path``, or the files below it, without lock files and temporary ones."""
    below = [file for file in path.rglob("*") if "/." not in f"/{file.relative_to(path)}"]
    return [file for file in (path, *below) if file.is_file()]


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
