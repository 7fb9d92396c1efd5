"""Verify a published dataset against its provenance: every digest, and every id exactly once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core.errors import VerificationError
from coopt_fl.core.words import plural
from coopt_fl.optimized.block import Rows, block_digest, checked_path, dataset_digest, row_groups
from coopt_fl.optimized.provenance import DataFile, Provenance, read_provenance

ANOTHER_DIGEST = "has another digest than its provenance says"


def verify(folder: Path) -> tuple[Provenance, list[str]]:
    """Return the provenance of the dataset in ``folder``, and a sentence on each fault.

    Consequences of a fault are not listed, such as the missing ids of a missing file. Memory holds
    the ids (8 bytes a row) and one block.

    Raises:
        VerificationError: there is no readable provenance.
    """
    provenance = read_provenance(folder)
    listed = {file.path for file in provenance.files}
    extra = [
        f"{path} is not in the provenance; remove it"  # readers would read it as data
        for path in sorted((folder / "data").glob("*.parquet"))
        if f"data/{path.name}" not in listed
    ]
    seen: list[NDArray[np.int64]] = []
    damage: list[str] = []
    for file in provenance.files:
        try:
            damage += _check_file(checked_path(folder, file), file, provenance, seen)
        except VerificationError as error:
            damage.append(str(error))
    ids = np.concatenate(seen) if seen else np.empty(0, np.int64)
    wrong = list(_coverage(ids, provenance, complete=not damage))
    if not any(ANOTHER_DIGEST in problem for problem in damage) and (
        dataset_digest(provenance.block_digests) != provenance.digest
    ):
        wrong.insert(0, "the dataset digest is not that of the block digests")
    return provenance, extra + damage + wrong


def _check_file(
    path: Path, file: DataFile, provenance: Provenance, seen: list[NDArray[np.int64]]
) -> list[str]:
    """Check each row group against its block; return one sentence for each wrong block."""
    problems, rows, filled = [], 0, provenance.filled(file)
    groups = row_groups(path, provenance.dim, len(filled))
    for block, columns in zip(filled, groups, strict=True):
        seen.append(columns[0])
        rows += len(columns[0])
        if wrong := list(_wrong(block, columns, provenance)):
            problems.append(f"{path}: block {block} {', and '.join(wrong)}")
    if rows != file.rows and not problems:
        problems.append(f"{path} holds {plural(rows, 'row')}, its provenance says {file.rows:,}")
    return problems


def _wrong(block: int, columns: Rows, provenance: Provenance) -> Iterator[str]:
    """Yield what is wrong with the rows of one block."""
    ids, targets, participants = columns
    if block_digest(ids, targets, participants) != provenance.block_digests[block]:
        yield ANOTHER_DIGEST
    if len(ids) != provenance.block_rows[block]:
        yield f"has {plural(len(ids), 'row')}, its provenance says {provenance.block_rows[block]:,}"
    if (np.diff(ids) <= 0).any():
        yield "does not have its ids in ascending order"
    if not np.isfinite(targets).all():
        yield "holds targets that are not finite"
    if ((participants < -1) | (participants >= len(provenance.contributors))).any():
        yield "names a contributor that is not listed"


def _coverage(ids: NDArray[np.int64], provenance: Provenance, complete: bool) -> Iterator[str]:
    """Check that every id of the source is either there once, or listed as skipped.

    Missing ids are reported only if the files are ``complete``; else they are a consequence.
    """
    unique, skipped = np.unique(ids), np.array(provenance.skipped, np.int64)
    twice, both = len(ids) - len(unique), len(np.intersect1d(unique, skipped))
    expected = int(provenance.source["rows"])
    named = np.union1d(unique, skipped)
    foreign = named[(named < 0) | (named >= expected)]
    wrong = []
    if twice:
        wrong.append(f"{plural(twice, 'row')} {'repeats' if twice == 1 else 'repeat'} an id")
    if both:
        wrong.append(f"{plural(both, 'id')} {'is' if both == 1 else 'are'} both there and skipped")
    if len(foreign):
        wrong.append(f"id {foreign[0]} is not of the source, whose ids are 0 to {expected - 1}")
    covered = len(named) - len(foreign)
    if complete and covered != expected:
        wrong.append(f"{covered:,} of the source's {expected:,} ids are accounted for")
    if wrong:
        yield "; ".join(wrong)
    if complete and len(ids) != provenance.rows:
        yield f"there are {plural(len(ids), 'row')}, the provenance says {provenance.rows:,}"
