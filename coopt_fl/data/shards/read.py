"""Published shards as a source: the files that are needed are downloaded, verified and kept."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core import remote
from coopt_fl.core.cache import cache_dir, exclusive
from coopt_fl.core.errors import DataError, OutputError
from coopt_fl.core.files import atomic
from coopt_fl.data.shards.manifest import MOST_BYTES, SHARED, Manifest, ShardFile, block_path, parse
from coopt_fl.data.shards.unit import Unit, decode_unit, row_of
from coopt_fl.data.source import EncodedSource


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


KEPT_OPEN_BYTES = 256 << 20
"""Files in memory at once, but never fewer than two: a batch may need rows of both."""


@dataclass(frozen=True)
class Shards:
    """Finished shards at a URL."""

    url: str
    manifest: Manifest
    manifest_sha256: str

    @property
    def fingerprint(self) -> str:
        """Of the source they were made of."""
        return self.manifest.fingerprint

    def source(self, blocks: Sequence[int], shared: bool) -> "ShardSource":
        """Return the source, of which only some images can be read.

        Args:
            blocks: numbers of the blocks whose units can be read.
            shared: whether the shared set can be read.

        Raises:
            DataError: there is no block of that number.
        """
        wrong = [number for number in blocks if not 0 <= number < self.manifest.blocks]
        if wrong:
            raise DataError(
                f"there is no block {wrong[0]} in the shards at {remote.shown(self.url)}, which "
                f"have {self.manifest.blocks}; publish them with the configuration of this run"
            )
        paths = [SHARED] * shared + [block_path(number) for number in blocks]
        return ShardSource(self, paths)


def open_shards(url: str) -> Shards:
    """Fetch and check the manifest of the shards at ``url``; no image is downloaded yet.

    Raises:
        DataError: there are none, they are not finished, or cannot be read.
    """
    place = remote.join(url, "manifest.json")
    try:
        content = remote.fetch(place, MOST_BYTES)
        return Shards(url, parse(content), hashlib.sha256(content).hexdigest())
    except remote.MissingObject as error:
        raise DataError(
            f"there are no finished shards at {remote.shown(url)} (no manifest.json, which is "
            "written last); let the platform run `coopt publish-shards` to its end"
        ) from error
    except ValueError as error:
        raise DataError(
            f"{remote.shown(place)} is not a manifest of shards ({error}); "
            "delete it, and let the platform run `coopt publish-shards` again"
        ) from error


class ShardSource(EncodedSource):
    """What the source looks like to a participant that holds some files of it.

    Ids, name, fingerprint and size of images are the source's own, so that targets are the same
    to the last bit. A file is downloaded when an id is first looked for in it.
    """

    def __init__(self, shards: Shards, paths: Sequence[str]) -> None:
        manifest = shards.manifest
        super().__init__(manifest.name, manifest.rows, manifest.image_size)
        self._url, self._fingerprint = shards.url, manifest.fingerprint
        self._folder = cache_dir() / "shards" / shards.manifest_sha256
        self._files = {path: manifest.files[path] for path in paths}
        self._ids: dict[str, NDArray[np.int64]] = {}  # of every file that was open
        self._open: dict[str, Unit] = {}  # the last one was used last

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the source holds, as the manifest says."""
        return self._fingerprint

    def where(self, id: int) -> str:
        """Return the URL of the file and the row in it."""
        path, row = self._find(id)
        return f"{remote.shown(remote.join(self._url, path))} row {row}"

    def _bytes(self, id: int) -> bytes:
        path, row = self._find(id)
        return self._unit(path).image(row)

    def _find(self, id: int) -> tuple[str, int]:
        """Return a file that holds ``id``, and the row: the file used last where it does."""
        for path in self._by_use():
            if path not in self._ids:
                self._ids[path] = self._unit(path).ids
            row = row_of(id, self._ids[path])
            if row is not None:
                return path, row
        raise DataError(
            f"id {id} is not in {', '.join(self._files) or 'any file'} of the shards at "
            f"{remote.shown(self._url)}; publish them with the configuration of this run"
        )

    def _by_use(self) -> Iterator[str]:
        yield from islice(reversed(self._open), 1)
        yield from list(self._ids)
        yield from [path for path in self._files if path not in self._ids]

    def _unit(self, path: str) -> Unit:
        """Return the content of a file, which is downloaded where it is not in the cache."""
        unit = self._open.pop(path, None)
        if unit is None:
            self._make_room(self._files[path].bytes)
            url, file = remote.join(self._url, path), self._files[path]
            content = verified(url, file, self._folder / path)
            try:
                unit = decode_unit(content, file.rows)
            except ValueError as error:
                raise DataError(
                    f"{remote.shown(url)} is not a file of shards ({error}); "
                    "delete it, and let the platform run `coopt publish-shards` again"
                ) from error
        self._open[path] = unit
        return unit

    def _make_room(self, needed: int) -> None:
        while len(self._open) > 1:
            taken = sum(self._files[path].bytes for path in self._open)
            if taken + needed <= KEPT_OPEN_BYTES:
                return
            del self._open[next(iter(self._open))]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a worker process opens what it needs
