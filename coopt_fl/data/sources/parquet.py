"""Parquet files with a column ``image`` (bytes, or Hugging Face's ``{bytes, path}``).

A block's ids lie anywhere in the source, and Parquet must decode a whole row group for one image.
So the images are first copied into one file, from which any of them is read directly.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.cache import cache_dir, cached
from coopt_fl.core.errors import DataError
from coopt_fl.core.files import expanded, is_folder
from coopt_fl.data.fingerprint import content_digest
from coopt_fl.data.listing import head, listed
from coopt_fl.data.source import EncodedSource, NoSplitError, Source
from coopt_fl.data.sources.classes import numbers, readable, require_one
from coopt_fl.data.sources.columns import texts
from coopt_fl.data.splits import split_of

MAGIC = b"PAR1"
"""How a Parquet file begins."""

NO_PARQUET = "no Parquet by its suffix or its first bytes"

ROWS_AT_ONCE = 256
"""Rows in memory while the files are copied."""


def images(data: DataConfig, split: str) -> Source:
    """Open the files of ``split`` below ``data.root``."""
    files, notes = _files(data, split)
    rows = []
    for file in files:
        with readable(file):
            schema, count = pq.read_schema(file), pq.read_metadata(file).num_rows
        if count:
            _leaf(file, schema)
        rows.append(count)
    if not sum(rows):
        raise DataError(f"{', '.join(file.name for file in files)} in {data.root} have no rows")
    source = ParquetSource(data, files, np.cumsum(rows).tolist())
    source.notes = notes
    return source


def labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Return the column ``label``, int64 (N,), as :func:`classes.numbers` does."""
    files, _ = _files(data, split)
    train = files if split == "train" else _files(data, "train")[0]
    found = numbers(train, files)
    return None if found is None else found[: data.limit]


def has_train(folder: Path) -> bool:
    """Tell whether a folder holds files of the train split."""
    found = listed(folder, _no_parquet, deep=False)
    return any(split_of(os.fsdecode(path)) == "train" for path in found.paths)


class ParquetSource(EncodedSource):
    """The rows of some files, one after the other.

    Args:
        data: names the source, and limits its rows.
        files: all in one folder.
        ends: the number of rows up to the end of each file.
    """

    def __init__(self, data: DataConfig, files: Sequence[Path], ends: Sequence[int]) -> None:
        super().__init__(data.source, min(ends[-1], data.limit or ends[-1]))
        self._files, self._ends = files, ends
        self._copy: FlatCopy | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the files' names and contents, and of the number of rows used."""
        names = [os.fsencode(file.name) for file in self._files]
        content = content_digest(self._files[0].parent, names)
        return hashlib.sha256(f"parquet {len(self)} {content}".encode()).hexdigest()

    def column(self, name: str) -> NDArray[np.str_] | None:
        """Return the values of a column of all files."""
        found = texts(self._files, name)
        return None if found is None else found[: len(self)]

    def where(self, id: int) -> str:
        """Return the file and the row in it, such as ``train-00.parquet row 17``."""
        place = int(np.searchsorted(self._ends, id, side="right"))
        return f"{self._files[place].name} row {id - ([0, *self._ends])[place]}"

    def _bytes(self, id: int) -> bytes:
        if self._copy is None:
            # Named for the content, so that changed files never meet an old copy.
            path = cache_dir() / "parquet" / f"{self.fingerprint[:32]}.images"
            self._copy = flat_copy(path, len(self), chain.from_iterable(map(_images, self._files)))
        return self._copy[id]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copy": None}  # an open file stays in its process


class FlatCopy:
    """A file with ``rows`` images, followed by int64 (rows + 1,), where they begin and end.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self._file = path.open("rb")
        end = os.fstat(self._file.fileno()).st_size - 8 * (rows + 1)
        self._offsets = np.fromfile(self._file, np.int64, offset=end)
        if (self._offsets[0], self._offsets[-1]) != (0, end):
            raise ValueError(f"{path} is damaged")

    def __getitem__(self, row: int) -> bytes:
        start, end = self._offsets[row : row + 2].tolist()
        return os.pread(self._file.fileno(), end - start, start)


def flat_copy(path: Path, rows: int, images: Iterable[bytes]) -> FlatCopy:
    """Open the copy at ``path`` in the cache; the first time, make it of ``rows`` of ``images``.

    Raises:
        OutputError: there is no room, or the cache cannot be written.
    """

    def make(path: Path) -> None:
        offsets = np.zeros(rows + 1, np.int64)
        with path.open("wb") as file:
            for row, image in enumerate(islice(images, rows)):
                offsets[row + 1] = offsets[row] + file.write(image)
            file.write(offsets.data)

    return cached(path, lambda: FlatCopy(path, rows), make)


def _files(data: DataConfig, split: str) -> tuple[list[Path], tuple[str, ...]]:
    """Return the split's files by name, and sentences about those that belong to no split.

    Files named for validation are the test split where none is named for test, or where they alone
    have labels.
    """
    root = expanded(data.root) if data.root else None
    if root is None or not is_folder(root, DataError):
        raise DataError(
            f"data.root={data.root} is not a folder; set it to the one that holds *train*.parquet"
        )
    found = listed(root, partial(_left_out, data.on_error == "skip"), deep=False)
    files: dict[str, list[Path]] = {"train": [], "test": [], "validation": []}
    for path in sorted(found.paths):
        files[split_of(os.fsdecode(path)) or ""].append(root / os.fsdecode(path))
    chosen = files[split]
    other = files["validation"] if split == "test" else []
    if other and (not chosen or _labeled_alone(files["train"], other, chosen)):
        chosen = other
    if not chosen:
        kind = NoSplitError if split == "test" and files["train"] else DataError
        problem = f"{root} has no *{split}*.parquet; name the files of that split so"
        raise kind("; ".join([problem, *found.notes]))
    return chosen, found.notes


def _labeled_alone(train: list[Path], files: list[Path], others: list[Path]) -> bool:
    """Tell whether ``files`` have labels, and ``others`` have none, or hide them."""
    return numbers(train, others) is None and numbers(train, files) is not None


def _left_out(skip: bool, path: bytes) -> str:
    """Return why a file is none of any split, or cannot be read and need not."""
    if reason := _no_parquet(path):
        return reason
    if split_of(os.fsdecode(path.rpartition(b"/")[2])) is None:
        return "Parquet, but no word of its name is train, test or validation"
    return "" if not skip or os.access(path, os.R_OK) else "unreadable"


def _no_parquet(path: bytes) -> str:
    """Return why a file is none of Parquet: neither by its name nor by its first bytes."""
    if path.lower().endswith(b".parquet"):
        return ""
    return "" if head(path, len(MAGIC)) == MAGIC else NO_PARQUET


def _images(file: Path) -> Iterator[bytes]:
    """Yield the images of ``file``; a null is an empty image."""
    with readable(file), pq.ParquetFile(file, memory_map=True) as parquet:
        if not parquet.metadata.num_rows:  # as pandas writes it, its columns have no type
            return
        leaf = _leaf(file, parquet.schema_arrow)
        for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=[leaf], use_threads=False):
            column = batch.column(0)
            values = column.field("bytes") if pa.types.is_struct(column.type) else column
            for value in values:
                yield value.as_py() or b""


def _leaf(file: Path, schema: Any) -> str:
    """Return the path of the column that holds the bytes.

    Raises:
        DataError: there is none.
    """
    require_one(file, schema, "image")
    kind = schema.field("image").type if "image" in schema.names else None
    if kind is None:
        raise DataError(
            f"{file} has no column image, but {', '.join(schema.names)}; rename the one with images"
        )
    leaf, path = kind, "image"
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        leaf, path = kind.field("bytes").type, "image.bytes"
    if not (pa.types.is_binary(leaf) or pa.types.is_large_binary(leaf)):
        raise DataError(
            f"column image of {file} holds {kind}; store the bytes of the image files, "
            "or a struct {bytes, path}"
        )
    return path
