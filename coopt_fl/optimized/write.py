"""From blocks to the published dataset: Parquet files, the card, and the manifest last."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coopt_fl.core.errors import OutputError
from coopt_fl.core.files import atomic, file_sha256, make_folder, remove_leftovers, write_json
from coopt_fl.federation.plan import Plan
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.block import Block, dataset_digest, schema
from coopt_fl.optimized.card import dataset_card
from coopt_fl.optimized.provenance import DataFile, Provenance

FILE_BYTES = 32 * 2**20
WRITERS = 2
"""Files under way at once: Arrow writes float16 lists on one core, value by value."""


@dataclass(frozen=True)
class Written:
    """What is known of a block once it is in a file."""

    digest: str
    rows: int
    skipped: list[int]


def publish(
    state: RunState, plan: Plan, draft: Provenance, progress: Callable[[int], None]
) -> Provenance:
    """Write ``state.dataset`` from the blocks of ``plan`` and return its provenance.

    Each writer reads one block at a time. What an interrupted publication left is written anew, for
    it may be of blocks that were since replaced; the manifest goes first and comes last, so that it
    never stands beside files that it does not describe.

    Args:
        state: holds every block.
        plan: the blocks.
        draft: the provenance but for files, digests and rows.
        progress: called with the rows written so far.
    """
    make_folder(state.dataset / "data")
    _clear(state.dataset)
    files: list[DataFile] = []
    blocks: list[Written] = []
    writers = ThreadPoolExecutor(WRITERS)
    try:
        write = partial(_write, state, draft.dim)
        for file, of_file in writers.map(write, count(), _groups(plan, draft.dim)):
            files.append(file)
            blocks += of_file
            progress(sum(one.rows for one in files))
    finally:
        writers.shutdown(cancel_futures=True)
    digests = [block.digest for block in blocks]
    finished = replace(
        draft,
        files=files,
        block_rows=[block.rows for block in blocks],
        block_digests=digests,
        digest=dataset_digest(digests),
        rows=sum(file.rows for file in files),
        skipped=sorted(chain.from_iterable(block.skipped for block in blocks)),
        complete=True,
    )
    with atomic(state.dataset / "README.md") as card:
        card.write(dataset_card(finished).encode())
    write_json(state.dataset / "provenance.json", finished.as_dict())
    return finished


def table(block: Block) -> pa.Table:
    """Return a block as Arrow columns."""
    columns = schema(block.targets.shape[1])
    flat = pa.array(np.ascontiguousarray(block.targets).reshape(-1), type=pa.float16())
    arrays = [
        pa.array(block.ids),
        pa.FixedSizeListArray.from_arrays(flat, type=columns.field("target").type),
        pa.array(block.participants),
    ]
    return pa.table(arrays, schema=columns)


def _clear(dataset: Path) -> None:
    """Remove an earlier publication's manifest and card, then its files."""
    try:
        for old in (dataset / "provenance.json", dataset / "README.md"):
            old.unlink(missing_ok=True)
        for old in (dataset / "data").glob("part-*.parquet"):
            old.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write in {dataset}: {error.strerror}; make it writable, then run again"
        ) from error
    remove_leftovers(dataset)


def _groups(plan: Plan, dim: int) -> Iterator[range]:
    """Cut the blocks into even files of at most FILE_BYTES, by the size of the first block."""
    per_file = max(1, FILE_BYTES // (len(plan.blocks[0]) * (2 * dim + 10)))
    total = len(plan.blocks)
    for part in np.array_split(np.arange(total), ceil(total / per_file)):
        yield range(int(part[0]), int(part[-1]) + 1)


def _write(state: RunState, dim: int, number: int, group: range) -> tuple[DataFile, list[Written]]:
    """Write one file, a row group for each block; targets do not compress, so they are not."""
    options: dict[str, Any] = {
        "compression": {"id": "zstd", "target.list.element": "none", "participant": "zstd"},
        "use_dictionary": False,
        "write_statistics": ["id"],
    }
    name = f"data/part-{number:05d}.parquet"
    path, written = state.dataset / name, []
    with atomic(path) as file, pq.ParquetWriter(file, schema(dim), **options) as writer:
        for index in group:
            block = state.block(index)
            if len(block.ids):
                writer.write_table(table(block), row_group_size=len(block.ids))
            written.append(Written(block.digest, len(block.ids), block.skipped.tolist()))
    rows = sum(block.rows for block in written)
    return DataFile(name, file_sha256(path), rows, group.start, group.stop), written
