"""From blocks to the published dataset: Parquet files, the card, and the manifest last."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coopt_fl.errors import OutputError
from coopt_fl.files import (
    atomic,
    file_sha256,
    make_folder,
    remove_leftovers,
    write_json,
)
from coopt_fl.optimized.block import Block, dataset_digest
from coopt_fl.optimized.card import dataset_card
from coopt_fl.optimized.plan import Plan
from coopt_fl.optimized.provenance import DataFile, Provenance
from coopt_fl.optimized.published import schema
from coopt_fl.optimized.state import RunState

FILE_BYTES = 64 * 2**20


def publish(
    state: RunState, plan: Plan, draft: Provenance, progress: Callable[[int], None]
) -> Provenance:
    """Write ``state.dataset`` from the blocks of ``plan`` and return its provenance.

    Blocks are read one at a time. What an interrupted publication left is written anew, for it
    may be of blocks that were since replaced; the manifest goes first and comes last, so that it
    never stands beside files that it does not describe.

    Args:
        state: holds every block.
        plan: the blocks.
        draft: the provenance but for files, digests and rows.
        progress: called with the rows written so far.
    """
    folder = state.dataset / "data"
    make_folder(folder)
    _clear(state.dataset)
    files: list[DataFile] = []
    digests: list[str] = []
    rows: list[int] = []
    skipped: list[int] = []
    for index, group in enumerate(_groups(plan, draft.dim)):
        path = folder / f"part-{index:05d}.parquet"
        first = len(digests)
        _write(path, _watched(state, group, digests, rows, skipped), draft.dim)
        files.append(
            DataFile(f"data/{path.name}", file_sha256(path), sum(rows[first:]), first, len(digests))
        )
        progress(sum(rows))
    finished = replace(
        draft,
        files=files,
        block_rows=rows,
        block_digests=digests,
        digest=dataset_digest(digests),
        rows=sum(rows),
        skipped=sorted(skipped),
        complete=True,
    )
    with atomic(state.dataset / "README.md") as card:
        card.write(dataset_card(finished).encode())
    write_json(state.dataset / "provenance.json", finished.as_dict())
    return finished


def table(block: Block) -> pa.Table:
    """Return a block as Arrow columns."""
    dim = block.targets.shape[1]
    flat = pa.array(np.ascontiguousarray(block.targets).reshape(-1), type=pa.float16())
    columns = [
        pa.array(block.ids),
        pa.FixedSizeListArray.from_arrays(flat, dim),
        pa.array(block.participants),
    ]
    return pa.table(columns, schema=schema(dim))


def _clear(dataset: Path) -> None:
    """Remove an earlier publication's manifest, then its files."""
    try:
        (dataset / "provenance.json").unlink(missing_ok=True)
        for old in (dataset / "data").glob("part-*.parquet"):
            old.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write in {dataset}: {error.strerror}; make it writable, then run again"
        ) from error
    remove_leftovers(dataset)


def _groups(plan: Plan, dim: int) -> Iterator[range]:
    """Cut the blocks into files of about FILE_BYTES, by the size of the first block."""
    per_file = max(1, FILE_BYTES // (len(plan.blocks[0]) * (2 * dim + 10)))
    total = len(plan.blocks)
    for first in range(0, total, per_file):
        yield range(first, min(first + per_file, total))


def _watched(
    state: RunState, group: range, digests: list[str], rows: list[int], skipped: list[int]
) -> Iterator[Block]:
    for index in group:
        block = state.block(index)
        digests.append(block.digest)
        rows.append(len(block.ids))
        skipped.extend(block.skipped.tolist())
        yield block


def _write(path: Path, blocks: Iterator[Block], dim: int) -> None:
    """Write one file, a row group for each block; targets do not compress, so they are not."""
    options: dict[str, Any] = {
        "compression": {"id": "zstd", "target.list.element": "none", "participant": "zstd"},
        "use_dictionary": False,
        "write_statistics": ["id"],
    }
    with atomic(path) as file, pq.ParquetWriter(file, schema(dim), **options) as writer:
        for block in _ahead(blocks):
            if len(block.ids):
                writer.write_table(table(block), row_group_size=len(block.ids))


def _ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    """Read and verify the next block in a thread while one is written."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block
