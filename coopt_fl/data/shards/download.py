"""A file of published shards in the user's cache, verified whenever it is read."""

import hashlib
from pathlib import Path

from coopt_fl.core import remote
from coopt_fl.core.cache import exclusive
from coopt_fl.core.errors import DataError, OutputError
from coopt_fl.core.files import atomic
from coopt_fl.data.shards.manifest import ShardFile


def verified(url: str, file: ShardFile, kept: Path) -> bytes:
    """Return the content of ``file`` from ``kept``; where it is not there whole, download it.

    Raises:
        DataError: what is at ``url`` is missing or not what the manifest says.
        OutputError: there is no room to keep it.
    """
    content = _kept(kept, file)
    if content is not None:
        return content
    try:
        with exclusive(kept.with_suffix(".lock")):
            content = _kept(kept, file)  # another process may have come first
            return _download(url, file, kept) if content is None else content
    except OSError as error:
        raise OutputError(
            f"cannot keep {kept} ({error.strerror}); set COOPT_CACHE to a folder with room for it"
        ) from error


def _kept(kept: Path, file: ShardFile) -> bytes | None:
    """Return the content; None where it is missing or damaged."""
    try:
        content = kept.read_bytes() if kept.stat().st_size == file.bytes else b""
    except OSError:
        return None
    return content if _is(content, file) else None


def _download(url: str, file: ShardFile, kept: Path) -> bytes:
    content = remote.fetch(url, file.bytes)
    if not _is(content, file):
        raise DataError(
            f"{remote.shown(url)} is not the file that its manifest describes (its sha256 "
            "differs); delete it, let the platform run `coopt publish-shards` again, and see who "
            "else can write there"
        )
    for left in kept.parent.glob(f".{kept.name}.*.tmp"):  # by a process that was killed
        left.unlink(missing_ok=True)
    with atomic(kept) as out:
        out.write(content)
    return content


def _is(content: bytes, file: ShardFile) -> bool:
    return len(content) == file.bytes and hashlib.sha256(content).hexdigest() == file.sha256
