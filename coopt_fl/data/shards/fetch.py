"""Published shards as a source: files are downloaded when needed, verified and cached."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core import remote
from coopt_fl.core.cache import cache_dir, cached
from coopt_fl.core.errors import DataError
from coopt_fl.data.shards.manifest import MOST_BYTES, SHARED, Manifest, ShardFile, block_path, parse
from coopt_fl.data.shards.unit import Unit, decode_unit
from coopt_fl.data.source import EncodedSource

KEPT_OPEN_BYTES = 256 << 20
"""Most bytes of files in memory, but at least two files: a batch may need rows of both."""


@dataclass(frozen=True)
class Shards:
    """Finished shards at a URL."""

    url: str
    manifest: Manifest
    manifest_sha256: str

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the source that was published."""
        return self.manifest.fingerprint

    def source(self, blocks: Sequence[int], shared: bool) -> "ShardSource":
        """Return the source, limited to the images of some units.

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
    """The published source, for a participant that can read its files ``paths``.

    Ids, name, fingerprint and image size are those of the source that was published, so that the
    targets are the same to the last bit. A file is downloaded when an id is first looked up in it.
    """

    def __init__(self, shards: Shards, paths: Sequence[str]) -> None:
        manifest = shards.manifest
        super().__init__(manifest.name, manifest.rows, manifest.image_size)
        self._url, self._fingerprint = shards.url, manifest.fingerprint
        self._folder = cache_dir() / "shards" / shards.manifest_sha256
        self._files = {path: manifest.files[path] for path in paths}
        self._ids: dict[str, NDArray[np.int64]] = {}  # of every file opened so far
        self._open: dict[str, Unit] = {}  # least recently used first

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the source's content, from the manifest."""
        return self._fingerprint

    def where(self, id: int) -> str:
        """Return the URL of the file and the row in it."""
        path, row = self._find(id)
        return f"{remote.shown(remote.join(self._url, path))} row {row}"

    def _bytes(self, id: int) -> bytes:
        path, row = self._find(id)
        return self._unit(path).image(row)

    def _find(self, id: int) -> tuple[str, int]:
        """Return a file that contains ``id``, and the row in it.

        The most recently used file is searched first; files not opened yet are searched last.
        """
        for path in chain(islice(reversed(self._open), 1), self._ids, self._files):
            if path not in self._ids:
                self._ids[path] = self._unit(path).ids
            ids = self._ids[path]
            row = int(np.searchsorted(ids, id))
            if row < len(ids) and ids[row] == id:
                return path, row
        raise DataError(
            f"id {id} is not in {', '.join(self._files) or 'any file'} of the shards at "
            f"{remote.shown(self._url)}; publish them with the configuration of this run"
        )

    def _unit(self, path: str) -> Unit:
        """Return the content of a file, which is downloaded if it is not in the cache."""
        unit = self._open.pop(path, None)
        if unit is None:
            url, file = remote.join(self._url, path), self._files[path]
            taken = file.bytes + sum(self._files[other].bytes for other in self._open)
            while len(self._open) > 1 and taken > KEPT_OPEN_BYTES:
                oldest = next(iter(self._open))
                taken -= self._files[oldest].bytes
                del self._open[oldest]
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

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # each worker process opens its own files


def verified(url: str, file: ShardFile, kept: Path) -> bytes:
    """Return the content of ``file`` from ``kept`` in the cache; download it the first time.

    Raises:
        DataError: the file at ``url`` is missing, or not the one in the manifest.
        OutputError: the cache has no room for it.
    """

    def intact(content: bytes, error: Exception) -> bytes:
        if len(content) == file.bytes and hashlib.sha256(content).hexdigest() == file.sha256:
            return content
        raise error

    foreign = DataError(
        f"{remote.shown(url)} is not the file that its manifest describes (its sha256 differs); "
        "delete it, let the platform run `coopt publish-shards` again, and see who else can write "
        "there"
    )
    return cached(
        kept,
        load=lambda: intact(kept.read_bytes(), ValueError(f"{kept} is damaged")),
        make=lambda path: path.write_bytes(intact(remote.fetch(url, file.bytes), foreign)),
    )
