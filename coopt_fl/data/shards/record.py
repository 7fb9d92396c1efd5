"""What an unfinished publication has written, kept in the user's cache of this host.

It has a line for each file that is whole at its URL; none is added before that is so.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from coopt_fl.core.cache import cache_dir, exclusive
from coopt_fl.core.errors import OutputError
from coopt_fl.data.shards.manifest import ShardFile


class Record:
    """The files written so far, by path below the URL."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, ShardFile]:
        """Return what is known; a line that was torn is not."""
        known = {}
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        for line in lines:
            try:
                path, entry = json.loads(line)
                known[path] = ShardFile(**entry)
            except (ValueError, TypeError):
                continue
        return known

    def add(self, path: str, file: ShardFile) -> None:
        """Add a file, which is whole at its URL."""
        with self._path.open("ab") as out:
            out.write(b"\n" + json.dumps([path, asdict(file)]).encode())

    def forget(self) -> None:
        """Delete the record."""
        self._path.unlink(missing_ok=True)


@contextmanager
def record_of(url: str, what: str) -> Iterator[Record]:
    """Open the record of publishing ``what`` at ``url``; one process at a time may.

    Raises:
        OutputError: the cache cannot be written.
    """
    folder = cache_dir() / "publishing" / hashlib.sha256(url.encode()).hexdigest()
    kept = folder / hashlib.sha256(what.encode()).hexdigest()
    try:
        with exclusive(folder):
            for other in folder.glob("[0-9a-f]*"):
                if other != kept:  # whose files may be overwritten from now on
                    other.unlink()
            yield Record(kept)
    except OSError as error:
        raise OutputError(
            f"cannot keep a record in {folder} ({error.strerror}); "
            "set COOPT_CACHE to a folder that can be written"
        ) from error
