"""The log in a command's output directory: its phases, its warnings, and how it ended.

Every attempt is appended. If the log cannot be written, the command goes on without it.
"""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from importlib import metadata
from pathlib import Path

from coopt_fl.core.cache import cache_dir
from coopt_fl.core.errors import OutputError
from coopt_fl.core.progress import Progress

LOG = "log.txt"
"""Name of the log file."""

_KEPT = "logged in "
"""Begins the note that names the log file with an error's traceback."""


@contextmanager
def logged(folder: Path, progress: Progress) -> Iterator[None]:
    """Log what ``progress`` reports until the block ends, and how the block ended.

    Of several processes that train together only the first one logs.

    Args:
        folder: gets the log file; created with the first line.
        progress: its ``log`` is replaced while the block runs.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":  # a process that trains beside the first
        yield
        return
    path, before = folder / LOG, progress.log
    progress.log = partial(_append, path)
    progress.log(f"coopt-fl {_version()} begins, process {os.getpid()}")
    try:
        yield
        progress.log("finished")
    except Exception as error:
        keep(path, error)
        raise
    except BaseException as error:
        progress.log(f"ended by {type(error).__name__}")
        raise
    finally:
        progress.log = before


def keep(path: Path, error: Exception) -> bool:
    """Append the traceback of ``error`` to the log ``path``; return whether that was possible."""
    kept = _append(path, "".join(traceback.format_exception(error)).rstrip())
    if kept:
        error.add_note(f"{_KEPT}{path}")
    return kept


def log_of(error: Exception) -> Path | None:
    """Return the log that holds the traceback of ``error``: the command's, else one in the cache.

    None if neither can be written.
    """
    for note in getattr(error, "__notes__", ()):
        if note.startswith(_KEPT):
            return Path(note.removeprefix(_KEPT))
    with suppress(OutputError):  # there is no home directory for the cache
        path = cache_dir() / LOG
        return path if keep(path, error) else None
    return None


def _version() -> str:
    try:
        return metadata.version("coopt-fl")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _append(path: Path, text: str) -> bool:
    """Append ``text`` with the time; return whether that was possible."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{now} {text}\n")
        return True
    return False
