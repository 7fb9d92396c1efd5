"""Find the columns of a table that hold the images and the labels."""

import json
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coopt_fl.core.errors import DataError
from coopt_fl.data.source import LABEL

IMAGE = "image"
"""Default name of the column of images; that of the column of labels is ``LABEL``."""


def image_column(where: str, schema: Any, chosen: str | None) -> str:
    """Return the name of the column of images: ``chosen``, ``image``, or the only possible one.

    Args:
        where: the file or folder, for errors.
        schema: an Arrow schema, perhaps with Hugging Face's features in its metadata.
        chosen: ``data.image_column``.

    Raises:
        DataError: there is none, several are possible, or it does not hold image files.
    """
    require_one(where, schema, chosen or IMAGE)
    able = [name for name in schema.names if leaf_of(schema, name)]
    if chosen is not None:
        found = [chosen] if chosen in schema.names else []
    elif IMAGE in able:
        return IMAGE
    else:
        marked = [name for name in able if _kind(schema, name) == "Image"]
        found = marked or able or [IMAGE] * (IMAGE in schema.names)
    kinds = dict(zip(schema.names, schema.types, strict=True))
    columns = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    if not found:
        raise DataError(
            f"{where} has no column {chosen or 'of images'}, but {columns or 'none at all'}; "
            "choose the one of images by data.image_column"
        )
    if len(found) > 1:
        raise DataError(
            f"{where} has several columns that may hold the images, {' and '.join(found)}; "
            "choose one by data.image_column"
        )
    if not leaf_of(schema, found[0]):
        raise DataError(
            f"column {found[0]} of {where} holds {kinds[found[0]]}; store the bytes of the "
            "image files, or a struct {bytes, path}, or choose another by data.image_column"
        )
    return found[0]


def label_column(where: str, schema: Any, chosen: str | None) -> str | None:
    """Return the name of the column of labels; None if there is none.

    It is ``chosen``, or ``label``, or the only ClassLabel of Hugging Face's features.

    Raises:
        DataError: there are two of that name.
    """
    require_one(where, schema, chosen or LABEL)
    if (chosen or LABEL) in schema.names:
        return chosen or LABEL
    classes = _classes(schema)
    return classes[0] if chosen is None and len(classes) == 1 else None


def names_of_classes(schema: Any, column: str | None) -> list[str]:
    """Return the class names of a column from Hugging Face's features; [] if there are none.

    A name's index is the number of its class.
    """
    names = _feature(schema, column).get("names") if column else None
    return [str(name) for name in names] if isinstance(names, list) else []


def require_label(where: str, names: Collection[str], chosen: str | None) -> None:
    """Raise DataError if ``data.label_column`` is ``chosen``, but is not among the ``names``."""
    if chosen is not None and chosen not in names:
        raise DataError(
            f"{where} has no column {chosen}, but {', '.join(names)}; choose the one of labels by "
            "data.label_column"
        )


def require_one(where: str, schema: Any, name: str) -> None:
    """Raise DataError if several columns have the name ``name``."""
    if schema.names.count(name) > 1:
        raise DataError(
            f"{where} has {schema.names.count(name)} columns {name}; rename all but one of them"
        )


def as_texts(where: str, name: str, column: Any) -> NDArray[np.str_]:
    """Return the values (N,) of an Arrow column as text, "" for nulls.

    Raises:
        DataError: it holds neither text nor numbers nor dates.
    """
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise DataError(f"column {name} of {where} holds {kind}; choose one of text or numbers")
    return np.array(column.cast(pa.string()).fill_null("").to_pylist(), np.str_)


def doubts(schema: Any, chosen: str | None) -> tuple[str, ...]:
    """Return a sentence for a note if the labels may be in one of several columns."""
    classes = _classes(schema)
    if chosen is not None or LABEL in schema.names or len(classes) < 2:
        return ()
    return (f"labels may be in {' or '.join(classes)}: choose one by data.label_column",)


def _classes(schema: Any) -> list[str]:
    return [name for name in schema.names if _kind(schema, name) == "ClassLabel"]


def _kind(schema: Any, column: str) -> Any:
    """Return a column's type in Hugging Face's features, such as "Image" or "ClassLabel"."""
    return _feature(schema, column).get("_type")


def _feature(schema: Any, column: str) -> dict[str, Any]:
    """Return a column's entry in Hugging Face's features; {} if there is none."""
    try:
        entry = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
    except (KeyError, TypeError, ValueError):  # the metadata may hold anything
        return {}
    return entry if isinstance(entry, dict) else {}


def leaf_of(schema: Any, name: str) -> str:
    """Return the Parquet path of the bytes in a column; "" if it holds none."""
    kind, path = schema.field(schema.names.index(name)).type, name
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind, path = kind.field("bytes").type, f"{name}.bytes"
    return path if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else ""
