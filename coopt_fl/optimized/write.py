"""Publish blocks as a dataset: Parquet files, card and croissant.json, the provenance last."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
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
from coopt_fl.optimized.block import Block, dataset_digest, schema
from coopt_fl.optimized.card import dataset_card
from coopt_fl.optimized.croissant import CROISSANT, encoded
from coopt_fl.optimized.provenance import DataFile, Provenance

FILE_BYTES = 32 * 2**20
WRITERS = 2
"""Files written at once: Arrow writes float16 lists on one core, value by value."""

ReadBlock = Callable[[int], Block]
"""Returns the block with an index; called from several threads."""


@dataclass(frozen=True)
class Written:
    """Digest, row count and skipped ids of a block that is in a file."""

    digest: str
    rows: int
    skipped: list[int]


def publish(
    dataset: Path,
    draft: Provenance,
    sizes: Sequence[int],
    read_block: ReadBlock,
    progress: Callable[[int], None],
) -> Provenance:
    """Write the folder ``dataset`` and return its provenance.

    Each writer holds one block at a time. Files of an interrupted publication are removed first,
    since their blocks may have been replaced. The provenance is removed before all other files
    and written after them, so that it never describes files that are not there.

    Args:
        dataset: the folder, which is created and should have no other content.
        draft: the provenance without files, digests and rows.
        sizes: samples of each block, unreadable ones included.
        read_block: returns a block by its index.
        progress: called with the rows written so far.

    Raises:
        OutputError: the disk is full or cannot be written.
    """
    make_folder(dataset / "data")
    _clear(dataset)
    files: list[DataFile] = []
    blocks: list[Written] = []
    writers = ThreadPoolExecutor(WRITERS)
    try:
        write = partial(_write_file, dataset, draft.dim, read_block)
        for file, of_file in writers.map(write, count(), _groups(sizes, draft.dim)):
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
    with atomic(dataset / "README.md") as card:
        card.write(dataset_card(finished).encode())
    with atomic(dataset / CROISSANT) as described:
        described.write(encoded(finished, datetime.now(UTC).date()))
    write_json(dataset / "provenance.json", asdict(finished))
    return finished


def _clear(dataset: Path) -> None:
    """Remove an earlier publication: provenance, card and croissant.json, then the data files."""
    try:
        for name in ("provenance.json", "README.md", CROISSANT):
            (dataset / name).unlink(missing_ok=True)
        for old in (dataset / "data").glob("part-*.parquet"):
            old.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write in {dataset}: {error.strerror}; make it writable, then run again"
        ) from error
    remove_leftovers(dataset)


def _groups(sizes: Sequence[int], dim: int) -> Iterator[range]:
    """Divide the blocks evenly into files of at most FILE_BYTES, by the size of the first block."""
    per_file = max(1, FILE_BYTES // (sizes[0] * (2 * dim + 10)))
    total = len(sizes)
    for part in np.array_split(np.arange(total), ceil(total / per_file)):
        yield range(int(part[0]), int(part[-1]) + 1)


def _write_file(
    dataset: Path, dim: int, read_block: ReadBlock, number: int, group: range
) -> tuple[DataFile, list[Written]]:
    """Write one file, a row group for each block; targets are incompressible and left as is."""
    options: dict[str, Any] = {
        "compression": {"id": "zstd", "target.list.element": "none", "participant": "zstd"},
        "use_dictionary": False,
        "write_statistics": ["id"],
    }
    name = f"data/part-{number:05d}.parquet"
    path, written = dataset / name, []
    with atomic(path) as file, pq.ParquetWriter(file, schema(dim), **options) as writer:
        for index in group:
            block = read_block(index)
            if len(block.ids):
                writer.write_table(_table(block), row_group_size=len(block.ids))
            written.append(Written(block.digest, len(block.ids), block.skipped.tolist()))
    rows = sum(block.rows for block in written)
    return DataFile(name, file_sha256(path), rows, group.start, group.stop), written


def _table(block: Block) -> pa.Table:
    """Return a block as Arrow columns."""
    columns = schema(block.targets.shape[1])
    flat = pa.array(np.ascontiguousarray(block.targets).reshape(-1), type=pa.float16())
    arrays = [
        pa.array(block.ids),
        pa.FixedSizeListArray.from_arrays(flat, type=columns.field("target").type),
        pa.array(block.participants),
    ]
    return pa.table(arrays, schema=columns)
