"""Reading a ``provenance.json``: what it must be like before anything is read by it."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from coopt_fl.core.errors import VerificationError
from coopt_fl.optimized.provenance import FORMAT, Contributor, DataFile, Provenance

SHA256 = re.compile("[0-9a-f]{64}")
INT64 = range(-(1 << 63), 1 << 63)


def read_provenance(dataset: Path) -> Provenance:
    """Read and check the manifest of the dataset folder ``dataset``.

    Raises:
        VerificationError: there is none, or it is not one.
    """
    path = dataset / "provenance.json"
    if not path.is_file():
        raise VerificationError(
            f"{dataset} holds no finished optimized dataset (no provenance.json, which is written "
            "last); give the dataset folder of a finished run"
        )
    try:
        raw = json.loads(path.read_bytes())
        known = {field.name for field in fields(Provenance)}
        if not isinstance(raw, dict) or set(raw) != known:
            raise TypeError(f"keys differ: {sorted(known ^ set(raw))}")
        if raw["format"] != FORMAT:
            raise ValueError(f"it is of format {raw['format']}")
        parts = {
            "contributors": [Contributor(**item) for item in raw["contributors"]],
            "files": [DataFile(**item) for item in raw["files"]],
        }
        read = Provenance(**(raw | parts))
        _check(read)
        return read
    except (ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise VerificationError(
            f"{path} is not a provenance of format {FORMAT} ({error}); copy it again"
        ) from None


def _check(read: Provenance) -> None:
    """Raise TypeError or ValueError where a value cannot be meant."""
    wanted = {
        "format": int, "rows": int, "dim": int, "digest": str, "complete": bool, "config": dict,
        "source": dict, "skipped": list, "block_rows": list, "block_digests": list,
        "plan_changes": list, "audit": dict,
    }  # fmt: skip
    for name, kind in wanted.items():
        if not isinstance(getattr(read, name), kind):
            raise TypeError(f"{name} is {getattr(read, name)!r}, not {kind.__name__}")
    if not SHA256.fullmatch(read.digest):
        raise ValueError("digest must be a sha256 sum")
    if not read.complete:
        raise ValueError("it says that it is not complete")
    if not all(_whole(count) and count >= 0 for count in (read.rows, read.dim)):
        raise ValueError("rows and dim must be whole numbers, not negative and within int64")
    if read.dim >= 1 << 31:
        raise ValueError(f"dim {read.dim} is more than Arrow's lists can hold")
    whole = {"rows": int, "fingerprint": str, "name": str}
    if not all(isinstance(read.source.get(key), kind) for key, kind in whole.items()):
        raise TypeError("source must have a name, a fingerprint and rows")
    if not _whole(read.source["rows"]):
        raise ValueError("the source's rows must be within int64")
    if not all(_whole(id) for id in read.skipped):
        raise TypeError("skipped must be ids, whole numbers within int64")
    _check_contributors(read)
    _check_blocks(read)
    _check_files(read)


def _whole(value: Any) -> bool:
    """Whether ``value`` is a number that an int64 holds."""
    return isinstance(value, int) and not isinstance(value, bool) and value in INT64


def _check_contributors(read: Provenance) -> None:
    """Require text, numbers and a cycle where they belong."""
    for one in read.contributors:
        texts = (one.name, one.prior, one.weights_sha256, one.alignment_sha256)
        numbers = [n for n in (one.uniformity, one.r2_heldout) if n is not None]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"contributor {one.name!r} needs text as name, prior and sha256 sums")
        if not all(isinstance(number, float) or _whole(number) for number in numbers):
            raise TypeError(f"contributor {one.name!r} needs numbers as uniformity and r2_heldout")
        if not _whole(one.cycle):
            raise TypeError(f"contributor {one.name!r} needs a whole number as cycle")


def _check_blocks(read: Provenance) -> None:
    """Compare the two lists of blocks with each other."""
    if len(read.block_rows) != len(read.block_digests):
        raise ValueError("as many block_rows as block_digests are needed")
    if not all(_whole(rows) and rows >= 0 for rows in read.block_rows):
        raise TypeError("block_rows must be whole numbers")
    if not all(
        isinstance(digest, str) and SHA256.fullmatch(digest) for digest in read.block_digests
    ):
        raise TypeError("block_digests must be sha256 sums")


def _check_files(read: Provenance) -> None:
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
