"""``coopt embed``: the embeddings of a source's images as one Parquet file.

A Parquet file cannot be appended to. To make the work resumable, each block is first written as a
file of its own into a hidden folder beside the output; at the end the blocks are concatenated and
the folder is deleted.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.core.files import atomic, is_file, locked, require_utf8
from coopt_fl.core.once import read_once
from coopt_fl.core.progress import Progress
from coopt_fl.data import Source, open_source, split_labels
from coopt_fl.priors.prior import Prior
from coopt_fl.targets.optimize import Encoded, represent_blocks

ROWS, BATCH = 1024, 64
"""Images in a block, which is the most that resuming computes again, and in a forward batch."""

KEY = b"coopt"
"""Metadata key of the Parquet file under which the origin of the embeddings is stored."""

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Embedded:
    """Summary of a file of embeddings.

    Attributes:
        file: The Parquet file.
        model: The prior that computed the embeddings.
        source: The source of the images.
        split: The split of the source.
        rows: Number of embeddings.
        width: Width of an embedding.
        labeled: Whether there is a column ``label``.
        skipped: Number of images that could not be read.
    """

    file: str
    model: str
    source: str
    split: str
    rows: int
    width: int
    labeled: bool
    skipped: int


def embed_source(
    prior: Prior, data: DataConfig, split: str, out: Path, progress: Progress
) -> Embedded:
    """Embed the images of a split by ``prior`` into the file ``out``, or resume doing so.

    Raises:
        ConfigError: The name of the file does not end with .parquet.
        DataError: The images cannot be read.
        OutputError: ``out`` exists with other content, or cannot be written.
    """
    require_utf8(out, "--out", OutputError)
    if out.suffix != ".parquet":
        raise ConfigError(f"--out {out} must end with .parquet")
    with read_once():
        source, labels = open_source(data, split), split_labels(data, split)
    for note in source.notes:
        progress.warn(note)
    key = {
        "model": prior.id,
        "sha256": prior.sha256,
        "preprocess": str(prior.preprocess),
        "source": source.name,
        "split": split,
        "fingerprint": source.fingerprint,
        "images": len(source),
        "decode": data.decode,
        "on_error": data.on_error,
        "labels": None if labels is None else hashlib.sha256(labels.tobytes()).hexdigest(),
    } | ({"max_pixels": data.max_pixels} if data.on_error == "skip" else {})
    schema = _schema(prior.width, labels is not None, json.dumps(key, sort_keys=True))
    if not _is_there(out, schema):
        folder = out.with_name(f".{out.name}.parts")
        with locked(folder / ".lock"):
            parts = _parts(prior, source, labels, schema, folder, data.on_error, progress)
            _write(out, schema, map(pq.read_table, parts))
        shutil.rmtree(folder)
    rows = pq.read_metadata(out).num_rows
    return Embedded(
        file=str(out),
        model=prior.id,
        source=source.name,
        split=split,
        rows=rows,
        width=prior.width,
        labeled=labels is not None,
        skipped=len(source) - rows,
    )


def _parts(
    prior: Prior,
    source: Source,
    labels: Ids | None,
    schema: pa.Schema,
    folder: Path,
    on_error: str,
    progress: Progress,
) -> list[Path]:
    """Write the blocks that are not in ``folder`` yet, and return the files of all of them."""
    blocks = [source.ids[start : start + ROWS] for start in range(0, len(source), ROWS)]
    parts = [folder / f"{number:08d}.parquet" for number in range(len(blocks))]
    missing = [number for number, part in enumerate(parts) if not _is_of(part, schema)]
    progress.show("embed", len(parts) - len(missing), len(parts), "block")
    made = represent_blocks(
        prior,
        source,
        [blocks[number] for number in missing],
        batch_size=BATCH,
        precision="float32",
        on_error=on_error,
    )
    left = range(len(missing) - 1, -1, -1)
    for number, block, after in zip(missing, made, left, strict=True):
        here = None if labels is None else labels[np.searchsorted(source.ids, block.ids)]
        names = [source.where(id) for id in block.ids.tolist()]
        _write(parts[number], schema, [_table(schema, block, names, here)])
        progress.show("embed", len(parts) - after, len(parts), "block")
    return parts


def _schema(width: int, labeled: bool, key: str) -> pa.Schema:
    """Return the columns, with the JSON ``key`` of the embeddings' origin as metadata."""
    columns = {
        "id": pa.int64(),
        "image": pa.string(),
        "embedding": pa.list_(pa.float32(), width),
    }
    both = columns | ({"label": pa.int64()} if labeled else {})
    return pa.schema(both).with_metadata({KEY: key.encode()})


def _table(schema: pa.Schema, block: Encoded, names: list[str], labels: Ids | None) -> pa.Table:
    """Return the rows of a block."""
    flat = pa.array(np.ascontiguousarray(block.values).reshape(-1))
    values = pa.FixedSizeListArray.from_arrays(flat, block.values.shape[1])
    columns = [pa.array(block.ids), pa.array(names), values]
    if labels is not None:
        columns.append(pa.array(labels))
    return pa.Table.from_arrays(columns, schema=schema)


def _write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write the tables to ``path`` atomically; each becomes one row group or more."""
    with atomic(path) as file, pq.ParquetWriter(file, schema) as writer:
        for table in tables:
            writer.write_table(table)


def _is_there(out: Path, schema: pa.Schema) -> bool:
    """Return whether ``out`` already holds these embeddings.

    Raises:
        OutputError: ``out`` holds something else.
    """
    if not out.exists():
        return False
    if not is_file(out, OutputError) or not _is_of(out, schema):
        raise OutputError(
            f"{out} is there already and holds something else than these embeddings: give another "
            "--out, or delete it"
        )
    return True


def _is_of(path: Path, schema: pa.Schema) -> bool:
    """Return whether ``path`` is a Parquet file of embeddings of the same origin."""
    try:
        known = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):  # missing, or not a Parquet file
        return False
    return bool(known.get(KEY) == schema.metadata[KEY])
