"""Checking a published dataset against its provenance: every sum, every id, exactly once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coopt_fl.errors import VerificationError
from coopt_fl.optimized.block import block_digest, dataset_digest
from coopt_fl.optimized.provenance import DataFile, Provenance, read_provenance
from coopt_fl.optimized.reader import row_groups, targets_of, verified


def verify(folder: Path) -> tuple[Provenance, list[str]]:
    """Return the provenance of the dataset in ``folder`` and what is wrong with it, in words.

    Memory: the ids (8 bytes a row) and one block.

    Raises:
        VerificationError: there is no readable provenance at all.
    """
    provenance = read_provenance(folder)
    problems = list(_strangers(folder, provenance))
    if dataset_digest(provenance.block_digests) != provenance.digest:
        problems.append("the dataset digest is not that of the block digests")
    seen: list[NDArray[np.int64]] = []
    for file in provenance.files:
        try:
            path = verified(folder, file)
            problems += _check_file(path, file, provenance, seen)
        except VerificationError as error:
            problems.append(str(error))
    ids = np.concatenate(seen) if seen else np.empty(0, np.int64)
    return provenance, problems + list(_coverage(ids, provenance))


def _strangers(folder: Path, provenance: Provenance) -> Iterator[str]:
    """Name files that readers would take for data though the provenance does not list them."""
    listed = {file.path for file in provenance.files}
    for path in sorted((folder / "data").glob("*.parquet")):
        if f"data/{path.name}" not in listed:
            yield f"{path} is not in the provenance; remove it"


def _check_file(
    path: Path, file: DataFile, provenance: Provenance, seen: list[NDArray[np.int64]]
) -> list[str]:
    """Compare each row group with its block's digest and row count."""
    blocks = range(file.first_block, file.end_block)
    if blocks.stop > len(provenance.block_rows):
        return [f"{path} claims blocks up to {blocks.stop}, of {len(provenance.block_rows)}"]
    filled = [block for block in blocks if provenance.block_rows[block]]
    problems, groups = [], list(row_groups(path, []))
    if len(groups) != len(filled):
        return [f"{path} holds {len(groups)} blocks, its provenance says {len(filled)}"]
    for block, group in zip(filled, row_groups(path), strict=True):
        ids, participants = _columns(path, group)
        seen.append(ids)
        if block_digest(ids, targets_of(group), participants) != provenance.block_digests[block]:
            problems.append(f"{path}: block {block} has another digest than its provenance says")
        if len(ids) != provenance.block_rows[block]:
            problems.append(f"{path}: block {block} has {len(ids)} rows")
        if participants.max() >= len(provenance.contributors) or participants.min() < -1:
            problems.append(f"{path}: block {block} names a contributor that is not listed")
    return problems


def _columns(path: Path, group: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    if group.schema.names != ["id", "target", "participant"]:
        raise VerificationError(f"{path} has columns {group.schema.names}")
    return group.column("id").to_numpy(), group.column("participant").to_numpy()


def _coverage(ids: NDArray[np.int64], provenance: Provenance) -> Iterator[str]:
    """Check that every id of the source is there once, or listed as skipped."""
    unique = np.unique(ids)
    if len(unique) != len(ids):
        yield f"{len(ids) - len(unique)} rows repeat an id"
    both = np.intersect1d(unique, provenance.skipped)
    if len(both):
        yield f"{len(both)} ids are both there and listed as skipped"
    expected = int(provenance.source["rows"])
    covered = len(unique) + len(set(provenance.skipped))
    if covered != expected:
        yield f"{covered} of the source's {expected} ids are accounted for"
    if len(ids) != provenance.rows:
        yield f"{len(ids)} rows, its provenance says {provenance.rows}"
