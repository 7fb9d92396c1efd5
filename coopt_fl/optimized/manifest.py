"""What a ``provenance.json`` must be like before anything is read by it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coopt_fl.optimized.provenance import Provenance

SHA256 = re.compile("[0-9a-f]{64}")


def check_manifest(read: "Provenance") -> None:
    """Raise TypeError or ValueError where a value cannot be meant."""
    wanted = {
        "format": int, "rows": int, "dim": int, "digest": str, "complete": bool, "config": dict,
        "source": dict, "skipped": list, "block_rows": list, "block_digests": list,
    }  # fmt: skip
    for name, kind in wanted.items():
        if not isinstance(getattr(read, name), kind):
            raise TypeError(f"{name} is {getattr(read, name)!r}, not {kind.__name__}")
    if not SHA256.fullmatch(read.digest):
        raise ValueError("digest must be a sha256 sum")
    if not read.complete:
        raise ValueError("it says that it is not complete")
    if min(read.rows, read.dim) < 0:
        raise ValueError("rows and dim must not be negative")
    whole = {"rows": int, "fingerprint": str, "name": str}
    if not all(isinstance(read.source.get(key), kind) for key, kind in whole.items()):
        raise TypeError("source must have a name, a fingerprint and rows")
    if not all(isinstance(id, int) for id in read.skipped):
        raise TypeError("skipped must be ids")
    _check_blocks(read)
    _check_files(read)


def _check_blocks(read: "Provenance") -> None:
    """Compare the two lists of blocks with each other."""
    if len(read.block_rows) != len(read.block_digests):
        raise ValueError("as many block_rows as block_digests are needed")
    if not all(isinstance(rows, int) and rows >= 0 for rows in read.block_rows):
        raise TypeError("block_rows must be whole numbers")
    if not all(
        isinstance(digest, str) and SHA256.fullmatch(digest) for digest in read.block_digests
    ):
        raise TypeError("block_digests must be sha256 sums")


def _check_files(read: "Provenance") -> None:
    """Require paths inside of the dataset, and that the files hold all blocks one after another."""
    end = 0
    for file in read.files:
        numbers = (file.rows, file.first_block, file.end_block)
        if not isinstance(file.path, str) or not all(isinstance(n, int) for n in numbers):
            raise TypeError(f"file entry {file} is malformed")
        if Path(file.path).is_absolute() or ".." in Path(file.path).parts:
            raise ValueError(f"file path {file.path!r} leaves the dataset")
        if not end == file.first_block < file.end_block:
            raise ValueError(f"{file.path} begins with block {file.first_block}, expected {end}")
        end = file.end_block
    if end != len(read.block_rows):
        raise ValueError(f"the files hold {end} blocks, expected {len(read.block_rows)}")
