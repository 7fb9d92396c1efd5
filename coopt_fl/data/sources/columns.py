"""A column of Parquet files as text, by whose values samples can be grouped."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coopt_fl.core.errors import DataError
from coopt_fl.data.sources.classes import readable, require_one


def texts(files: Sequence[Path], name: str) -> NDArray[np.str_] | None:
    """Return the values of column ``name`` in all rows of ``files``, (N,), "" for nulls.

    None: no file has such a column.

    Raises:
        DataError: a file cannot be read, only some have the column, or it holds neither text nor
            numbers nor dates.
    """
    schemas = {}
    for file in files:
        with readable(file):
            schemas[file] = pq.read_schema(file)
        require_one(file, schemas[file], name)
    without = [file for file in files if name not in schemas[file].names]
    if len(without) == len(files):
        return None
    if without:
        raise DataError(
            f"{without[0]} has no column {name}, which others have; write it there, too"
        )
    return np.concatenate([_texts(file, name) for file in files])


def _texts(file: Path, name: str) -> NDArray[np.str_]:
    with readable(file):
        column = pq.read_table(file, columns=[name]).column(name)
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise DataError(f"column {name} of {file} holds {kind}; choose one of text or numbers")
    return np.array(column.cast(pa.string()).fill_null("").to_pylist(), np.str_)
