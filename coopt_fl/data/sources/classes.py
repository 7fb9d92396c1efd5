"""Turn columns of labels into class numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coopt_fl.core.errors import DataError
from coopt_fl.data.stream import Copied

UNKNOWN = -1
"""The class of an image whose label is unknown; test splits use it to hide their labels."""

Columns = Mapping[str, Any]
"""Arrow arrays of labels, with nulls for missing ones, by the file or split that they are from."""


def numbers(train: Columns, columns: Columns, name: str = "label") -> NDArray[np.int64] | None:
    """Return the class of each row of ``columns``, int64 (N,), -1 if unknown; None: all unknown.

    Texts are numbered by their index among the sorted texts of ``train``.

    Args:
        train: the labels of the train split.
        columns: the labels to number.
        name: the name of their column, for errors.

    Raises:
        DataError: labels are neither whole numbers nor text, or a mixture of them.
    """
    plain = {where: _plain(column) for where, column in {**train, **columns}.items()}
    texts = {where: column for where, column in plain.items() if _is_text(column)}
    others = [
        where for where, one in plain.items() if where not in texts and one.null_count < len(one)
    ]
    if texts and others:
        raise DataError(
            f"column {name} is text in {next(iter(texts))}, but not in {others[0]}; write the "
            "same kind into all files"
        )
    known = sorted({word for where in train for word in _words(plain[where])}) if texts else []
    for where, column in texts.items():
        plain[where] = pc.index_in(column, value_set=pa.array(known, column.type))
    classes = [_whole(plain[where], where, name) for where in columns]
    found = np.concatenate([np.empty(0, np.int64), *classes])
    return None if (found < 0).all() else found.clip(UNKNOWN)


def numbers_of_texts(
    train: Columns, columns: Columns, name: str = "label"
) -> NDArray[np.int64] | None:
    """Like :func:`numbers`, for texts; they are read as numbers if all of them are numbers."""
    every = {where: _plain(column) for where, column in {**train, **columns}.items()}
    for kind in (pa.int64(), pa.float64()):
        try:
            read = {where: _filled(column).cast(kind) for where, column in every.items()}
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
        every = read
        break
    of_train, mine = ({where: every[where] for where in some} for some in (train, columns))
    return numbers(of_train, mine, name)


def numbers_of_copies(train: Copied, copied: Copied) -> NDArray[np.int64] | None:
    """Return the classes of a copied stream, see :func:`numbers_of_texts`."""
    return numbers_of_texts({"train": _decoded(train.texts)}, {"stream": _decoded(copied.texts)})


def _decoded(texts: NDArray[np.bytes_]) -> Any:
    return pa.array(texts.tolist(), pa.string())


def _filled(column: Any) -> Any:
    """Return a column in which empty texts are nulls."""
    if not _is_text(column):
        return column
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)


def _plain(column: Any) -> Any:
    """Return a column as one array of a type that Arrow computes with.

    Categories are decoded, booleans become numbers.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_boolean(column.type):
        return column.cast(pa.int8())
    return column.cast(pa.string()) if pa.types.is_string_view(column.type) else column


def _is_text(column: Any) -> bool:
    kind = column.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _words(column: Any) -> list[str]:
    """Return the distinct texts in a column, except empty ones and nulls."""
    return [word for word in column.unique().to_pylist() if word]


def _whole(column: Any, where: str, name: str) -> NDArray[np.int64]:
    """Return whole numbers as int64, -1 for nulls."""
    kind = column.type
    try:
        if pa.types.is_null(kind):
            column = column.cast(pa.int64())
        elif pa.types.is_floating(
            kind
        ):  # pandas turns whole numbers into floats if some are missing
            column = column.cast(pa.float64())  # nothing is computed with those of 16 bits
            column = pc.if_else(pc.is_nan(column), UNKNOWN, column)
        elif not pa.types.is_integer(kind):
            raise pa.ArrowInvalid
        found: NDArray[np.int64] = column.cast(pa.int64()).fill_null(UNKNOWN).to_numpy()
    except pa.ArrowException:
        raise DataError(
            f"column {name} of {where} holds {kind}; store the classes as text, or as whole "
            "numbers from 0 on"
        ) from None
    return found
