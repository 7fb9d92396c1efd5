"""The column ``label`` of Parquet files as numbers of classes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coopt_fl.core.errors import DataError

LABEL = "label"
UNKNOWN = -1
"""Of an image whose class is not known: test splits hide theirs so."""


def numbers(train: Sequence[Path], files: Sequence[Path]) -> NDArray[np.int64] | None:
    """Return the class of each row of ``files``, int64 (N,), -1 where it is not known.

    Texts are numbered by their place among the sorted ones of ``train``. None: no row of ``files``
    has a class.

    Raises:
        DataError: a file cannot be read, or its labels are neither whole numbers nor text.
    """
    columns = {file: _column(file) for file in dict.fromkeys([*train, *files])}
    texts = {file: column for file, column in columns.items() if _is_text(column)}
    others = [file for file in columns if file not in texts and columns[file].null_count == 0]
    if texts and any(len(columns[file]) for file in others):
        raise DataError(
            f"column {LABEL} is text in {next(iter(texts))}, but not in {others[0]}; write the "
            "same kind into all files"
        )
    names = sorted({name for file in train for name in _words(columns[file])}) if texts else []
    for file, column in texts.items():
        columns[file] = pc.index_in(column, value_set=pa.array(names, column.type))
    classes = [_whole(columns[file], file) for file in files]
    found = np.concatenate([np.empty(0, np.int64), *classes])
    return None if len(found) and (found < 0).all() else found.clip(UNKNOWN)


def _column(file: Path) -> Any:
    """Return the labels of a file, nulls where it has none."""
    with readable(file):
        schema = pq.read_schema(file)
        require_one(file, schema, LABEL)
        if LABEL not in schema.names:
            return pa.nulls(pq.read_metadata(file).num_rows)
        column = pq.read_table(file, columns=[LABEL]).column(LABEL).combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column


def _is_text(column: Any) -> bool:
    kind = column.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _words(column: Any) -> list[str]:
    """Return the texts in a column, each once, but for empty ones and nulls."""
    return [name for name in column.unique().to_pylist() if name]


def _whole(column: Any, file: Path) -> NDArray[np.int64]:
    """Return whole numbers as int64, -1 for nulls."""
    kind = column.type
    try:
        if pa.types.is_null(kind):
            column = column.cast(pa.int64())
        elif pa.types.is_floating(kind):  # as pandas writes a column where some are missing
            column = pc.if_else(pc.is_nan(column), UNKNOWN, column)
        elif not pa.types.is_integer(kind):
            raise pa.ArrowInvalid
        found: NDArray[np.int64] = column.cast(pa.int64()).fill_null(UNKNOWN).to_numpy()
    except pa.ArrowInvalid:
        raise DataError(
            f"column {LABEL} of {file} holds {kind}; store the classes as text, or as whole "
            "numbers from 0 on"
        ) from None
    return found


def require_one(file: Path, schema: Any, name: str) -> None:
    """Raise DataError where a file has two columns of one name."""
    if schema.names.count(name) > 1:
        raise DataError(
            f"{file} has {schema.names.count(name)} columns {name}; rename all but one of them"
        )


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turn what a missing or damaged file raises into one sentence."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{file} cannot be read as Parquet ({reason}); fetch or write it again"
        ) from error
