"""``manifest.json``: describes published shards, and how each of their files is verified.

It does not contain the seed, with which participants could tell audit rows from a block's own.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core import typed
from coopt_fl.core.typed import Sha256, matching, within

SHARED = "shared.parquet"


@dataclass(frozen=True, eq=False)
class Layout:
    """The ids in each file, for all participants together.

    Attributes:
        units: ids (R,) of each unit, from :func:`coopt_fl.data.blocks.make_units`.
        shared: ids (S,) of the shared set.
        block_rows: ids per block.
        audit_fraction: audit ids per id of a block.
        owners: the participant that alone may get each unit; empty if any may get any.
    """

    units: list[NDArray[np.int64]]
    shared: NDArray[np.int64]
    block_rows: int
    audit_fraction: float
    owners: list[str] = field(default_factory=list)

    def files(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Yield each file's path below the URL, and the ids in it."""
        for number, unit in enumerate(self.units):
            yield block_path(number), unit
        yield SHARED, self.shared

    def by_owner(self) -> dict[str, list[str]]:
        """Return the first and the last file of each owner's units; {} if units have no owners."""
        found: dict[str, list[str]] = {}
        for number, name in enumerate(self.owners):
            found[name] = [found.get(name, [block_path(number)])[0], block_path(number)]
        return found

    def digest(self) -> str:
        """Return the sha256 (hex) of all files' ids."""
        total = hashlib.sha256()
        for _, ids in self.files():
            total.update(len(ids).to_bytes(8, "little") + ids.astype("<i8").tobytes())
        return total.hexdigest()


def block_path(number: int) -> str:
    """Return the path, below the URL, of the file with the unit of block ``number``."""
    return f"blocks/{number:07}.parquet"


FORMAT = 1

MOST_BYTES = 64 << 20
"""Largest manifest: half a million blocks."""

MOST_FILE_BYTES = 1 << 30
"""Largest file, since it is held in memory as a whole."""

MOST_ROWS = 1 << 30
"""Most rows of a source, since each takes 8 bytes of memory before anything is read."""

_Side = Annotated[int, within(1, 1 << 16)]


@dataclass(frozen=True)
class ShardFile:
    """One file: its sha256 (hex), its size, and the number of images in it."""

    sha256: Sha256
    bytes: Annotated[int, within(1, MOST_FILE_BYTES)]
    rows: Annotated[int, within(1, MOST_ROWS)]


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``.

    Attributes:
        name: the name of the source, such as ``"digits"``.
        fingerprint: the fingerprint of the source.
        rows: number of images in the source.
        image_size: (height, width) if all images of the source have the same size, else None.
        block_rows: ids per block.
        audit_fraction: audit ids per id of a block.
        ids_sha256: :meth:`coopt_fl.data.shards.Layout.digest`.
        files: the files by path below the URL.
    """

    name: Annotated[str, matching("[a-z0-9_]{1,64}", "the name of a source")]
    fingerprint: Sha256
    rows: Annotated[int, within(1, MOST_ROWS)]
    image_size: tuple[_Side, _Side] | None
    block_rows: Annotated[int, within(1, 1 << 62)]
    audit_fraction: Annotated[float, within(0, 1)]
    ids_sha256: Sha256
    files: dict[str, ShardFile]

    @property
    def blocks(self) -> int:
        """The number of blocks: all files but that of the shared set."""
        return len(self.files) - 1

    def encode(self) -> bytes:
        """Return the file's content."""
        value = {"format": FORMAT, **asdict(self), "complete": True}
        return json.dumps(value, indent=1).encode() + b"\n"


def parse(content: bytes) -> Manifest:
    """Return the manifest in a file's ``content``.

    Raises:
        ValueError: it is not one; the message says why.
    """
    tree = typed.parse(dict[str, Any], content)
    known = {"format", "complete", *Manifest.__dataclass_fields__}
    _need(set(tree) == known, "its keys differ")
    _need(tree.pop("format") == FORMAT, f"it is not of format {FORMAT}")
    _need(tree.pop("complete") is True, "it says that it is not complete")
    read = typed.decode(Manifest, tree)
    _check_files(read)
    _need(content == read.encode(), "it is not as it was written")  # such as duplicate keys
    return read


def _check_files(read: Manifest) -> None:
    """Raise ValueError unless there is a file for every block, and one for the shared set."""
    least = -(-read.rows // read.block_rows)  # a partition may make more blocks
    _need(read.blocks >= least, f"{least} blocks and the shared set need files")
    paths = {block_path(number) for number in range(read.blocks)}
    _need(set(read.files) == paths | {SHARED}, "its files are not the blocks and the shared set")
    _need(all(file.rows <= read.rows for file in read.files.values()), "a file has too many rows")
    rows = sum(read.files[path].rows for path in paths)
    _need(rows >= read.rows, f"the blocks have {rows} rows, at least {read.rows} are needed")


def _need(fine: bool, problem: str) -> None:
    if not fine:
        raise ValueError(problem)
