"""``manifest.json``: what published shards are, and how each of their files can be verified.

The seed is not in it: whoever knows the seed can tell audit rows from work.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARED = "shared.parquet"


@dataclass(frozen=True, eq=False)
class Layout:
    """What is published, for all participants together.

    Attributes:
        units: ids (R,) of each unit, as :func:`coopt_fl.data.make_units` gives them.
        shared: ids (S,) of the shared set.
        block_rows: ids of a block.
        audit_fraction: audit ids per id of a block.
    """

    units: list[NDArray[np.int64]]
    shared: NDArray[np.int64]
    block_rows: int
    audit_fraction: float

    def files(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Yield the path below the URL of every file, and the ids in it."""
        for number, unit in enumerate(self.units):
            yield block_path(number), unit
        yield SHARED, self.shared

    def digest(self) -> str:
        """Return the sha256 (hex) of all files' ids."""
        total = hashlib.sha256()
        for _, ids in self.files():
            total.update(len(ids).to_bytes(8, "little") + ids.astype("<i8").tobytes())
        return total.hexdigest()


def block_path(number: int) -> str:
    """Return the path below the URL of the file that holds the unit of block ``number``."""
    return f"blocks/{number:07}.parquet"


FORMAT = 1

MOST_BYTES = 64 << 20
"""Of a manifest: half a million blocks."""

MOST_FILE_BYTES = 1 << 30
"""Of a file, for it is in memory as a whole."""

MOST_ROWS = 1 << 30
"""Of a source, for 8 bytes of memory are taken for each before anything is read."""

_SHA256 = re.compile("[0-9a-f]{64}")
_NAME = re.compile("[a-z0-9_]{1,64}")


@dataclass(frozen=True)
class ShardFile:
    """How one file is verified: its sha256 (hex), its size, and the images in it."""

    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class Manifest:
    """What was published.

    Attributes:
        name: of the source, such as ``"digits"``.
        fingerprint: of the source.
        rows: images in the source.
        image_size: (height, width) where every image has it by nature, else None.
        block_rows: ids of a block.
        audit_fraction: audit ids per id of a block.
        ids_sha256: :meth:`coopt_fl.data.shards.Layout.digest`.
        files: by path below the URL.
    """

    name: str
    fingerprint: str
    rows: int
    image_size: tuple[int, int] | None
    block_rows: int
    audit_fraction: float
    ids_sha256: str
    files: dict[str, ShardFile]

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.rows // self.block_rows)

    def encode(self) -> bytes:
        """Return the file's content."""
        value = {"format": FORMAT, **asdict(self), "complete": True}
        return json.dumps(value, indent=1).encode() + b"\n"


def parse(content: bytes) -> Manifest:
    """Return the manifest in a file's ``content``.

    Raises:
        ValueError: it is not one; the message says why.
    """
    try:
        tree = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    known = set(Manifest.__dataclass_fields__)
    _need(isinstance(tree, dict) and set(tree) == known | {"format", "complete"}, "its keys differ")
    _need(tree.pop("format") == FORMAT, f"it is not of format {FORMAT}")
    _need(tree.pop("complete") is True, "it says that it is not complete")
    size, files = tree["image_size"], tree["files"]
    _need(isinstance(files, dict), "files must hold paths")
    _need(size is None or (isinstance(size, list) and len(size) == 2), "image_size is no pair")
    tree["image_size"] = size and (size[0], size[1])
    tree["files"] = {path: _file(path, entry) for path, entry in files.items()}
    read = Manifest(**tree)
    _check(read)
    _need(content == read.encode(), "it is not as it was written")  # keys given twice, and so on
    return read


def _file(path: str, entry: Any) -> ShardFile:
    _need(isinstance(entry, dict) and set(entry) == {"sha256", "bytes", "rows"}, f"{path!r}: keys")
    file = ShardFile(**entry)
    _need(_is_sum(file.sha256), f"{path!r}: sha256 is no sum")
    _need(_whole(file.bytes, 1, MOST_FILE_BYTES), f"{path!r}: bytes is out of range")
    _need(_whole(file.rows, 1, MOST_ROWS), f"{path!r}: rows is out of range")
    return file


def _check(read: Manifest) -> None:
    _need(isinstance(read.name, str) and bool(_NAME.fullmatch(read.name)), "name is no source's")
    _need(_is_sum(read.fingerprint) and _is_sum(read.ids_sha256), "a sha256 is no sum")
    _need(_whole(read.rows, 1, MOST_ROWS), "rows is out of range")
    _need(all(_whole(side, 1, 1 << 16) for side in read.image_size or ()), "image_size is no size")
    _need(_whole(read.block_rows, 1, 1 << 62), "block_rows is out of range")
    fraction = read.audit_fraction
    number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    _need(number and 0 <= fraction <= 1, "audit_fraction is no fraction")
    _need(len(read.files) == read.blocks + 1, f"{read.blocks} blocks and the shared set need files")
    paths = {block_path(number) for number in range(read.blocks)}
    _need(set(read.files) == paths | {SHARED}, "its files are not the blocks and the shared set")
    _need(all(file.rows <= read.rows for file in read.files.values()), "a file has too many rows")
    rows = sum(read.files[path].rows for path in paths)
    _need(rows >= read.rows, f"the blocks have {rows} rows, at least {read.rows} are needed")


def _need(fine: bool, problem: str) -> None:
    if not fine:
        raise ValueError(problem)


def _is_sum(value: Any) -> bool:
    return isinstance(value, str) and bool(_SHA256.fullmatch(value))


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
