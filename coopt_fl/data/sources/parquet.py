"""Parquet files with a column of images (bytes, or Hugging Face's ``{bytes, path}``).

They are in one folder, or below it as in a repository of the Hugging Face hub. A block's ids are
spread over the source, and Parquet must decode a whole row group to read one image. So the images
are first copied into one file with random access.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import ENOENT
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.cache import cache_dir
from coopt_fl.core.errors import DataError
from coopt_fl.core.once import once
from coopt_fl.data.columns import (
    IMAGE,
    as_texts,
    doubts,
    image_column,
    label_column,
    leaf_of,
    names_of_classes,
    require_label,
    require_one,
)
from coopt_fl.data.fingerprint import content_digest
from coopt_fl.data.flat import FlatCopy, flat_copy
from coopt_fl.data.listing import BESIDE, head, named
from coopt_fl.data.source import LABEL, EncodedSource, NoSplitError, Source
from coopt_fl.data.sources.classes import numbers
from coopt_fl.data.split_files import Files, below, choose

SUFFIX = ".parquet"
MAGIC = b"PAR1"
"""First bytes of a Parquet file."""

NO_PARQUET = "no Parquet by its suffix or its first bytes"
TORN = "Parquet that cannot be read"

ROWS_AT_ONCE = 256
"""Rows in memory at once while the files are copied."""


def images(data: DataConfig, split: str) -> Source:
    """Open the files of ``split`` below ``data.root``."""
    every = _every(data)
    found = choose(every, data, split, SUFFIX, _Labels(data, Path(every.root)).known)
    rows, columns, notes = [], set[str](), found.notes
    for file in found.paths:
        with opened(file) as parquet:
            schema, count = parquet.schema_arrow, parquet.metadata.num_rows
        if count:
            columns.add(image_column(str(file), schema, data.image_column))
            notes += doubts(schema, data.label_column)
        rows.append(count)
    if not sum(rows):
        kind = NoSplitError if split == "test" else DataError
        raise kind(f"{', '.join(found.names)} in {data.root} have no rows")
    if len(columns) > 1:
        raise DataError(
            f"the {split} files in {data.root} have their images in several columns, "
            f"{' and '.join(sorted(columns))}; rename all but one of them"
        )
    source = ParquetSource(data, found, columns.pop(), np.cumsum(rows).tolist())
    source.notes = tuple(dict.fromkeys(notes))
    return source


def labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Return the labels, int64 (N,), numbered by :func:`classes.numbers`, or None."""
    every = _every(data)
    read = _Labels(data, Path(every.root))
    mine, train = (choose(every, data, one, SUFFIX, read.known).names for one in (split, "train"))
    found = read.numbers(train, mine)
    require_label(every.root, read.columns, data.label_column)
    return None if found is None else found[: data.limit]


def class_names(data: DataConfig) -> list[str]:
    """Return the class names in Hugging Face's features, in order; [] if there are none."""
    every = _every(data)
    train = choose(every, data, "train", SUFFIX, _Labels(data, Path(every.root)).known)
    for file in train.paths:
        with opened(file) as parquet:
            schema = parquet.schema_arrow
        column = label_column(str(file), schema, data.label_column)
        if names := names_of_classes(schema, column):
            return names
    return []


def has_parquet(path: Path) -> bool:
    """Tell whether a path has the suffix of a Parquet file."""
    return path.suffix.lower() == SUFFIX


class ParquetSource(EncodedSource):
    """The rows of some files, one file after the other.

    Args:
        data: gives the name and the limit of the source.
        found: the files.
        column: the column of the images.
        ends: cumulative number of rows at the end of each file.
    """

    def __init__(self, data: DataConfig, found: Files, column: str, ends: Sequence[int]) -> None:
        super().__init__(data.source, min(ends[-1], data.limit or ends[-1]))
        self._found, self._column, self._ends = found, column, ends
        self._skip = data.on_error == "skip"
        self._copy: FlatCopy | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the files' names and contents, and of the rows and column used."""
        names = [os.fsencode(name) for name in self._found.names]
        content = content_digest(Path(self._found.root), names)
        column = "" if self._column == IMAGE else f" {self._column}"  # "" keeps older digests valid
        return hashlib.sha256(f"parquet {len(self)} {content}{column}".encode()).hexdigest()

    def column(self, name: str) -> NDArray[np.str_] | None:
        """Return the values (N,) of a column as text; None if no file has it."""
        every = {file: _texts(file, name) for file in self._found.paths}
        found = [one for one in every.values() if one is not None]
        if found and len(found) < len(every):
            without = next(file for file, one in every.items() if one is None)
            raise DataError(f"{without} has no column {name}, which others have; write it there")
        return np.concatenate(found)[: len(self)] if found else None

    def where(self, id: int) -> str:
        """Return the file and the row in it, such as ``train-00.parquet row 17``."""
        place = int(np.searchsorted(self._ends, id, side="right"))
        name = named([os.fsencode(self._found.names[place])])
        return f"{name} row {id - ([0, *self._ends])[place]}"

    def _bytes(self, id: int) -> bytes:
        if self._copy is None:
            # Named by the content, so that changed files never get an old copy.
            path = cache_dir() / "parquet" / f"{self.fingerprint[:32]}.images"
            every = (_images(file, self._column, self._skip) for file in self._found.paths)
            self._copy = flat_copy(path, len(self), chain.from_iterable(every))
        image = self._copy[id]
        if not image and (where := self._paths[id]):
            raise FileNotFoundError(ENOENT, f"its bytes are missing, and {where} is not looked for")
        return image

    @cached_property
    def _paths(self) -> list[str | None]:
        """The original path of each image, if it is stored beside the bytes."""
        return list(chain.from_iterable(_paths(file, self._column) for file in self._found.paths))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copy": None}  # an open file stays in its process


class _Labels:
    """The labels in files below ``root``; each file is read once.

    ``columns`` has the columns of all files read so far.
    """

    def __init__(self, data: DataConfig, root: Path) -> None:
        self._chosen, self._skip, self._root = data.label_column, data.on_error == "skip", root
        self._read: dict[str, Any] = {}
        self.columns: dict[str, None] = {}

    def known(self, train: list[str], names: list[str]) -> bool:
        """Tell whether files have labels, given those of train."""
        return self.numbers(train, names) is not None

    def numbers(self, train: list[str], names: list[str]) -> NDArray[np.int64] | None:
        """Return the classes in files, see :func:`classes.numbers`."""
        of_train, mine = (
            {str(self._root / one): self._column(one) for one in some} for some in (train, names)
        )
        return numbers(of_train, mine, self._chosen or LABEL)

    def _column(self, name: str) -> Any:
        """Return the labels of a file, nulls if it has none."""
        if name not in self._read:
            file = self._root / name
            with opened(file) as parquet:
                schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
            self.columns |= dict.fromkeys(schema.names)
            column = label_column(str(file), schema, self._chosen)
            if column is None:
                self._read[name] = pa.nulls(rows)
            else:
                found = once((file, column, self._skip), partial(self._rows, file, column))
                self._read[name] = found
        return self._read[name]

    def _rows(self, file: Path, column: str) -> Any:
        try:
            with opened(file) as parquet:
                return parquet.read([column]).column(column)
        except DataError:
            if not self._skip:
                raise
            with opened(file) as parquet:
                return pa.nulls(parquet.metadata.num_rows)


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Open a Parquet file with any name; raise DataError if it is damaged."""
    try:
        with pa.memory_map(os.fsencode(file)) as mapped, pq.ParquetFile(mapped) as parquet:
            yield parquet
    except (OSError, pa.ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{file} cannot be read as Parquet ({reason}); fetch or write it again, or set "
            "data.on_error=skip"
        ) from error


def _texts(file: Path, name: str) -> NDArray[np.str_] | None:
    with opened(file) as parquet:
        if name not in parquet.schema_arrow.names:
            return None
        require_one(str(file), parquet.schema_arrow, name)
        return as_texts(str(file), name, parquet.read([name]).column(name))


def _paths(file: Path, column: str) -> list[str | None]:
    """Return the path beside the bytes of each row; None if there is none."""
    with opened(file) as parquet:
        rows, kind = parquet.metadata.num_rows, parquet.schema_arrow.field(column).type
        if rows and pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
            with suppress(OSError, pa.ArrowException):  # the file is torn
                found = parquet.read([f"{column}.path"]).column(column)
                return [value and value["path"] for value in found.to_pylist()]
        return [None] * rows


def _every(data: DataConfig) -> Files:
    """Return all Parquet files of a source."""
    unwanted = partial(_left_out, data.on_error == "skip")
    return once(("parquet", repr(data)), lambda: below(data, unwanted, SUFFIX))


def _left_out(skip: bool, path: bytes) -> str:
    """Return why a file is no Parquet, or, if ``skip``, that it is torn; "" if it is wanted."""
    if not path.lower().endswith(SUFFIX.encode()) and head(path, len(MAGIC)) != MAGIC:
        return BESIDE if path.endswith(b"/README.md") else NO_PARQUET
    if skip:
        try:
            with opened(Path(os.fsdecode(path))):
                pass
        except DataError:
            return TORN
    return ""


def _images(file: Path, column: str, skip: bool) -> Iterator[bytes]:
    """Yield the images of ``file``; b"" for nulls and, if ``skip``, rows of torn row groups."""
    with opened(file) as parquet:
        if not parquet.metadata.num_rows:  # written by pandas, its columns have no type
            return
        leaf = leaf_of(parquet.schema_arrow, column)
        for group in range(parquet.num_row_groups):
            missing = parquet.metadata.row_group(group).num_rows
            try:
                for image in _of_group(parquet, group, leaf):
                    yield image
                    missing -= 1
            except (OSError, pa.ArrowException):
                if not skip:
                    raise
                yield from [b""] * missing


def _of_group(parquet: Any, group: int, leaf: str) -> Iterator[bytes]:
    for batch in parquet.iter_batches(ROWS_AT_ONCE, [group], [leaf], use_threads=False):
        found = batch.column(0)
        values = found.field("bytes") if pa.types.is_struct(found.type) else found
        for value in values:
            yield value.as_py() or b""
