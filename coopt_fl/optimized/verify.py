"""Checking a published dataset against its provenance: every sum, every id, exactly once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core.errors import VerificationError
from coopt_fl.optimized.block import Rows, block_digest, checked_path, dataset_digest, row_groups
from coopt_fl.optimized.provenance import DataFile, Provenance, read_provenance


def verify(folder: Path) -> tuple[Provenance, list[str]]:
    """Return the provenance of the dataset in ``folder`` and what is wrong with it, in words.

    Memory: the ids (8 bytes a row) and one block.

    Raises:
        VerificationError: there is no readable provenance at all.
    """
    provenance = read_provenance(folder)
    listed = {file.path for file in provenance.files}
    problems = [
        f"{path} is not in the provenance; remove it"  # readers would take it for data
        for path in sorted((folder / "data").glob("*.parquet"))
        if f"data/{path.name}" not in listed
    ]
    if dataset_digest(provenance.block_digests) != provenance.digest:
        problems.append("the dataset digest is not that of the block digests")
    seen: list[NDArray[np.int64]] = []
    for file in provenance.files:
        try:
            path = checked_path(folder, file)
            problems += _check_file(path, file, provenance, seen)
        except VerificationError as error:
            problems.append(str(error))
    ids = np.concatenate(seen) if seen else np.empty(0, np.int64)
    return provenance, problems + list(_coverage(ids, provenance))


def _check_file(
    path: Path, file: DataFile, provenance: Provenance, seen: list[NDArray[np.int64]]
) -> list[str]:
    """Compare each row group with its block's digest and row count."""
    problems, rows, filled = [], 0, provenance.filled(file)
    groups = row_groups(path, provenance.dim, len(filled))
    for block, columns in zip(filled, groups, strict=True):
        seen.append(columns[0])
        rows += len(columns[0])
        problems += [
            f"{path}: block {block} {wrong}" for wrong in _wrong(block, columns, provenance)
        ]
    if rows != file.rows:
        problems.append(f"{path} holds {rows} rows, its provenance says {file.rows}")
    return problems


def _wrong(block: int, columns: Rows, provenance: Provenance) -> Iterator[str]:
    """Say what is wrong with the rows of one block."""
    ids, targets, participants = columns
    if block_digest(ids, targets, participants) != provenance.block_digests[block]:
        yield "has another digest than its provenance says"
    if len(ids) != provenance.block_rows[block]:
        yield f"has {len(ids)} rows, its provenance says {provenance.block_rows[block]}"
    if (np.diff(ids) <= 0).any():
        yield "does not have its ids in ascending order"
    if not np.isfinite(targets).all():
        yield "holds targets that are not finite"
    if ((participants < -1) | (participants >= len(provenance.contributors))).any():
        yield "names a contributor that is not listed"


def _coverage(ids: NDArray[np.int64], provenance: Provenance) -> Iterator[str]:
    """Check that every id of the source is there once, or listed as skipped."""
    unique = np.unique(ids)
    if len(unique) != len(ids):
        yield f"{len(ids) - len(unique)} rows repeat an id"
    both = np.intersect1d(unique, provenance.skipped)
    if len(both):
        yield f"{len(both)} ids are both there and listed as skipped"
    expected = int(provenance.source["rows"])
    named = np.union1d(unique, np.array(provenance.skipped, np.int64))
    foreign = named[(named < 0) | (named >= expected)]
    if len(foreign):
        yield f"id {foreign[0]} is not of the source, which has ids 0 to {expected - 1}"
    covered = len(named) - len(foreign)
    if covered != expected:
        yield f"{covered} of the source's {expected} ids are accounted for"
    if len(ids) != provenance.rows:
        yield f"{len(ids)} rows, its provenance says {provenance.rows}"
