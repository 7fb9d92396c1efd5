"""Files that are either whole or absent, however the process ends."""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import IO, Any

from coopt_fl.core.errors import ConfigError, CooptError, OutputError

AGAIN = "run the command that wrote it again"

ONE_AT_A_TIME = Lock()
"""Guards reading .npy data, whose header numpy parses as Python code: before Python 3.11.8 that is
not thread-safe (python/cpython#106905), and sound files and messages would seem damaged."""


def expanded(path: str | Path) -> Path:
    """Return ``path`` with ``~`` and ``~user`` replaced by a home directory.

    Raises:
        ConfigError: there is no home directory, as in a container without HOME.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: {error} Set HOME, or write the whole path") from None


def is_folder(path: Path, kind: type[CooptError]) -> bool:
    """Tell whether ``path`` is a folder; raise ``kind`` if it may not be looked at."""
    return stat.S_ISDIR(_mode(path, kind))


def is_file(path: Path, kind: type[CooptError]) -> bool:
    """Tell whether ``path`` is a regular file; raise ``kind`` if it may not be looked at."""
    return stat.S_ISREG(_mode(path, kind))


def _mode(path: Path, kind: type[CooptError]) -> int:
    """Return a file's mode, 0 if there is no file; ``Path.is_dir`` raises below a locked folder."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise kind(
            f"{path} cannot be looked at ({reason}): give another path, or check the permissions "
            "of the folders above it"
        ) from error


def read_regular(path: Path) -> bytes:
    """Return the bytes of a regular file. A pipe is refused: reading one may never end.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    number = os.open(os.fspath(path), os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    with os.fdopen(number, "rb") as file:
        return file.read()


def require_utf8(path: Path | str, name: str, kind: type[CooptError]) -> None:
    """Raise ``kind`` if a path is not valid UTF-8, the encoding of every file that records it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(str(path)).decode("utf-8", "backslashreplace")
        raise kind(
            f"{name}={shown} is no UTF-8 text; rename it, or give a link to it (ln -s)"
        ) from None


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Yield a temporary file that is fsynced and renamed to ``path`` when the block ends.

    Raises:
        OutputError: the disk is full, read-only or failing; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_names(path.parent)
    except OSError as error:
        _remove(temporary)
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; what was finished is kept: "
            "free some space or mend the disk, then run the same command again"
        ) from error
    except BaseException:
        _remove(temporary)
        raise


def adopt(file: Path, path: Path) -> None:
    """Rename a complete, fsynced ``file`` to ``path`` on the same file system, atomically.

    Raises:
        OutputError: it is not there, or the disk is read-only or failing.
    """
    try:
        file.replace(path)
        _sync_names(path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot rename {file} to {path}: {error.strerror}; run the same command again"
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the folder of the lock file ``path`` for this process; both are created if missing.

    Raises:
        OutputError: another process holds the lock, or the file cannot be written or locked.
    """
    folder = path.parent
    make_folder(folder)
    try:
        lock = path.open("w")
    except OSError as error:
        raise OutputError(
            f"cannot write in {folder}: {error.strerror}; give another --out"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"{folder} is in use by another process; wait for it to end"
            ) from None
        except OSError as error:
            raise OutputError(
                f"{path} cannot be locked: {error.strerror}; give an --out on another file system"
            ) from error
        yield


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed process left in ``folder`` and below.

    Safe only if no other process writes to that folder.
    """
    for temporary in folder.rglob(".*.tmp"):
        _remove(temporary)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    with atomic(path) as file:
        text = json.dumps(value, indent=1, ensure_ascii=False)
        file.write(text.encode(errors="backslashreplace") + b"\n")  # for names not in UTF-8


@contextmanager
def understood(what: Path | str) -> Iterator[None]:
    """Turn errors of a block that meets unexpected content in ``what`` into a ConfigError."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{what} is not what this version writes ({error!r}); {AGAIN}") from None


def make_folder(path: Path) -> None:
    """Create ``path`` and its parents; raise OutputError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create {path}: {error.strerror}; give another --out") from error


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_names(folder: Path) -> None:
    """Fsync the directory ``folder``, so that a rename in it survives a crash."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _remove(path: Path) -> None:
    with suppress(OSError):  # a read-only disk refuses even for a missing file
        path.unlink(missing_ok=True)
