"""One file of published shards: Parquet with the columns ``id`` and ``image``."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

SCHEMA = pa.schema([pa.field("id", pa.int64(), False), pa.field("image", pa.binary(), False)])
ROWS_AT_ONCE = 64
"""Rows that are written together, and that are read before their size is checked."""


@dataclass(frozen=True, eq=False)
class Unit:
    """The images of a file, as the bytes of image files.

    Attributes:
        ids: int64 (R,), ascending.
        images: an Arrow column of R binary values.
    """

    ids: NDArray[np.int64]
    images: Any

    def image(self, row: int) -> bytes:
        """Return the bytes of one image's file."""
        return bytes(self.images[row].as_py())


def encode_unit(ids: NDArray[np.int64], images: Iterable[bytes]) -> bytes:
    """Return the content of a file with ``images`` and their ``ids`` (R,), which ascend.

    ``images`` is consumed while the file is written, so that only one copy of them is in memory.
    """
    out, left = io.BytesIO(), iter(images)
    # Images are already compressed, and a dictionary finds no repeated values.
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(out, SCHEMA, **plain) as writer:
        for start in range(0, len(ids), ROWS_AT_ONCE):
            some = ids[start : start + ROWS_AT_ONCE]
            values = pa.array(islice(left, len(some)), pa.binary())
            writer.write_batch(pa.record_batch([pa.array(some), values], schema=SCHEMA))
    return out.getvalue()


def decode_unit(content: bytes, rows: int) -> Unit:
    """Return the ``rows`` images of a file, which is not trusted.

    Raises:
        ValueError: it is not such a file; the message says why.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            table = _table(file, rows, 2 * len(content))
        ids = table.column("id").to_numpy()
    except Exception as error:  # damaged files make pyarrow raise many things
        raise ValueError((str(error).strip() or type(error).__name__).splitlines()[0]) from error
    if (np.diff(ids) <= 0).any():
        raise ValueError("its ids do not ascend")
    return Unit(ids, table.column("image"))


def _table(file: Any, rows: int, most_bytes: int) -> Any:
    """Read all rows; refuse a file that expands to more than ``most_bytes``.

    The bytes are counted, because asking pyarrow whether a column is compressed aborts the process
    if a damaged file names an unknown compression.
    """
    if not file.schema_arrow.equals(SCHEMA):
        raise ValueError(f"it has the columns {', '.join(map(str, file.schema_arrow))}")
    batches = []
    for batch in file.iter_batches(ROWS_AT_ONCE, use_threads=False):
        batch.validate(full=True)
        if any(column.null_count for column in batch.columns):
            raise ValueError("it has rows without a value")
        batches.append(batch)
        most_bytes -= batch.nbytes
        if most_bytes < 0:
            raise ValueError("it holds more bytes than it has")
    table = pa.Table.from_batches(batches, SCHEMA)
    if len(table) != rows:
        raise ValueError(f"it holds {len(table)} rows, expected {rows}")
    return table
