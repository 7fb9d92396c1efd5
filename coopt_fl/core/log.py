"""A log beside what a command writes: when each phase began, warnings, and what ended it.

Every attempt is appended. A log that cannot be written is left out, for the command can go on
without it.
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
"""Name of the file."""

_KEPT = "logged in "
"""Before the path, in the note of an error whose traceback is in a log."""


@contextmanager
def logged(folder: Path, progress: Progress) -> Iterator[None]:
    """Log in ``folder`` what ``progress`` is told, until the block ends, and what ended it.

    Of several processes that train together only the first does.

    Args:
        folder: where the file is, made by the first line.
        progress: its ``log`` is replaced meanwhile.
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
    """Return the log with the traceback of ``error``: a command's own, else one in the cache.

    It is None where that cannot be written.
    """
    for note in getattr(error, "__notes__", ()):
        if note.startswith(_KEPT):
            return Path(note.removeprefix(_KEPT))
    with suppress(OutputError):  # there is no cache
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
