"""Digests of files by their names and contents, independent of the folder they are in."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from coopt_fl.core.cache import cache_dir
from coopt_fl.core.errors import DataError, OutputError
from coopt_fl.core.files import atomic, make_folder

THREADS = 8
AT_ONCE = 4096
"""Files whose digests are pending at once."""

SETTLED_S = 2.0
"""A file changed less than these seconds ago may change again without a change of its times."""


UNREADABLE = b"unreadable"
"""Replaces the digest of a file that cannot be read, if that is allowed."""


def content_digest(folder: Path, names: Sequence[bytes], *, skip: bool = False) -> str:
    """Return the sha256 (hex) over the names and bytes of files, in the order given.

    Args:
        folder: the folder of the files; its own path does not count.
        names: path of each file below ``folder``.
        skip: whether files that cannot be read are allowed.

    Raises:
        DataError: a file cannot be read.
    """
    return remembered(folder, names, lambda: _digest(folder, names, skip), skip=skip)


def remembered(
    folder: Path,
    names: Sequence[bytes],
    compute: Callable[[], str],
    *,
    skip: bool = False,
    of: str = "",
) -> str:
    """Return ``compute()``, a digest of files, or its result from the per-user cache.

    Reading 100 GB takes minutes, so the digest is cached for as long as no file's size or times of
    change differ.

    Args:
        folder: see :func:`content_digest`.
        names: see :func:`content_digest`.
        compute: returns the sha256 (hex).
        skip: see :func:`content_digest`.
        of: tells different digests of the same files apart.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        state, newest = _state(folder, names, skip)
        if of:
            state = hashlib.sha256(f"{state} {of}".encode()).hexdigest()
        known = cache_dir() / "fingerprints" / state
        stored = _kept(known)
        if re.fullmatch("[0-9a-f]{64}", stored):  # else it is missing or damaged
            return stored
        digest = compute()
    except OSError as error:
        raise DataError(
            f"{error.filename or folder} cannot be read ({error.strerror}); repair or remove it, "
            "or set data.on_error=skip, and see that the files stay as they are during a run"
        ) from error
    if time.time() - newest > SETTLED_S:
        with suppress(OutputError):  # if it cannot be stored, it is computed again next time
            make_folder(known.parent)
            with atomic(known) as file:
                file.write(digest.encode())
    return digest


def _kept(known: Path) -> str:
    """Return the cached digest; "" if it cannot be read."""
    with suppress(OSError, UnicodeDecodeError):
        return known.read_text()
    return ""


def _digest(folder: Path, names: Sequence[bytes], skip: bool) -> str:
    """Return the digest over the name and the digest of each file."""

    def one(name: bytes) -> bytes:
        try:
            with (folder / os.fsdecode(name)).open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError:
            if not skip:
                raise
            return UNREADABLE

    total = hashlib.sha256()
    with ThreadPoolExecutor(THREADS) as threads:
        for start in range(0, len(names), AT_ONCE):
            part = names[start : start + AT_ONCE]
            for name, digest in zip(part, threads.map(one, part), strict=True):
                total.update(name + b"\0" + digest)
    return total.hexdigest()


def _state(folder: Path, names: Sequence[bytes], skip: bool) -> tuple[str, float]:
    """Return a digest of the files' paths, sizes and times, and the newest of these times."""
    total, newest = hashlib.sha256(os.fsencode(folder.resolve())), 0.0
    for name in names:
        try:
            at = (folder / os.fsdecode(name)).stat()
        except OSError:
            if not skip:
                raise
            total.update(b"\0%s\0" % name + UNREADABLE)
            continue
        newest = max(newest, at.st_ctime, at.st_mtime)
        total.update(b"\0%s\0%d %d %d" % (name, at.st_size, at.st_mtime_ns, at.st_ctime_ns))
    return total.hexdigest(), newest
