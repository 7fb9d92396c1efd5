"""Parquet files with a column ``image`` (bytes, or Hugging Face's ``{bytes, path}``).

A block's ids lie anywhere in the source, and Parquet must decode a whole row group for one image.
So the images are first copied into one file, from which any of them is read at once."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.cache import cache_dir, exclusive
from coopt_fl.core.errors import DataError, OutputError
from coopt_fl.data.fingerprint import content_digest
from coopt_fl.data.source import EncodedSource, Source, limited

_IMAGES, _OFFSETS = "images.bin", "offsets.npy"


class FlatImages:
    """The images of a folder that :func:`flat_copy` made."""

    def __init__(self, folder: Path) -> None:
        self._offsets: NDArray[np.int64] = np.load(folder / _OFFSETS)
        self._file = (folder / _IMAGES).open("rb")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> bytes:
        start, end = self._offsets[row : row + 2].tolist()
        return os.pread(self._file.fileno(), end - start, start)


def flat_copy(folder: Path, images: Callable[[], Iterable[bytes]]) -> FlatImages:
    """Open the copy in ``folder``; the first time, make it of ``images()``.

    Raises:
        OutputError: there is no room, or the folder cannot be written.
    """
    try:
        with exclusive(folder):
            if not _is_whole(folder):
                _write(folder, images())
        return FlatImages(folder)
    except OSError as error:
        raise OutputError(
            f"cannot copy the images into {folder} ({error.strerror}); "
            "set COOPT_CACHE to a folder with room for them"
        ) from error


def _is_whole(folder: Path) -> bool:
    """Whether the offsets, which are written last, are there and all the images they point at."""
    try:
        ends = np.load(folder / _OFFSETS, mmap_mode="r")
        return int(ends[-1]) == (folder / _IMAGES).stat().st_size
    except (OSError, ValueError, EOFError):
        return False


def _write(folder: Path, images: Iterable[bytes]) -> None:
    """Write all images, and only then their offsets under the final name."""
    ends = [0]
    try:
        with (folder / _IMAGES).open("wb") as file:
            for image in images:
                ends.append(ends[-1] + file.write(image))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        (folder / _IMAGES).unlink(missing_ok=True)  # it may have filled the disk
        raise
    temporary = folder / f"partial-{_OFFSETS}"
    np.save(temporary, np.array(ends, dtype=np.int64))
    temporary.replace(folder / _OFFSETS)


ROWS_AT_ONCE = 256
"""Rows in memory while the files are copied."""


class ParquetSource(EncodedSource):
    """The rows of some files, one after the other; only the batch that is read is in memory."""

    def __init__(self, name: str, files: Sequence[Path], rows: int, ends: Sequence[int]) -> None:
        super().__init__(name, rows)
        self._files, self._ends = list(files), list(ends)
        self._flat: FlatImages | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the files' names and contents, and of the number of rows used."""
        names = [os.fsencode(file.name) for file in self._files]
        content = content_digest(self._files[0].parent, names)
        return hashlib.sha256(f"parquet {len(self)} {content}".encode()).hexdigest()

    def where(self, id: int) -> str:
        """Return the file and the row in it, such as ``train-00.parquet row 17``."""
        place = int(np.searchsorted(self._ends, id, side="right"))
        return f"{self._files[place].name} row {id - ([0, *self._ends])[place]}"

    def _bytes(self, id: int) -> bytes:
        if self._flat is None:
            # Named for the content, so that changed files never meet an old copy.
            folder = cache_dir() / "parquet" / self.fingerprint[:32]
            self._flat = flat_copy(folder, self._column)
        return self._flat[id]

    def _column(self) -> Iterator[bytes]:
        left = len(self)
        for file in self._files:
            for image in _images(file, left):
                yield image
                left -= 1

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_flat": None}  # an open file stays in its process


def images(data: DataConfig, split: str) -> Source:
    """Open the files of ``split`` below ``data.root``."""
    files = _files(data, split)
    rows = []
    for file in files:
        with _readable(file):
            schema, count = pq.read_schema(file), pq.read_metadata(file).num_rows
        _leaf(file, schema)
        rows.append(count)
    if not sum(rows):
        raise DataError(f"{', '.join(file.name for file in files)} in {data.root} have no rows")
    ends = np.cumsum(rows).tolist()
    return ParquetSource(data.source, files, limited(ends[-1], data), ends)


def labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Return the column ``label``, int64 (N,).

    None where it is missing, or holds null or -1, with which test splits hide their labels.
    """
    columns = []
    for file in _files(data, split):
        with _readable(file):
            if "label" not in pq.read_schema(file).names:
                return None
            columns.append(pq.read_table(file, columns=["label"]).column("label"))
        if pa.types.is_null(columns[-1].type):
            return None
        if not pa.types.is_integer(columns[-1].type):
            raise DataError(
                f"column label of {file} holds {columns[-1].type}; "
                "number the classes from 0 and store the numbers"
            )
    if any(column.null_count for column in columns):
        return None
    classes = np.concatenate([column.to_numpy() for column in columns])
    if (classes < 0).any():
        return None
    return classes[: limited(len(classes), data)].astype(np.int64)


def _files(data: DataConfig, split: str) -> list[Path]:
    """Return the split's files by name."""
    root = Path(data.root).expanduser() if data.root else None
    if root is None or not root.is_dir():
        raise DataError(
            f"data.root={data.root} is not a folder; set it to the one that holds *train*.parquet"
        )
    train = sorted(root.glob("*train*.parquet"))
    if split == "train":
        found = train
    else:
        rest = [file for file in sorted(root.glob("*.parquet")) if file not in train]
        found = [file for file in rest if "test" in file.name]
        found = found or [file for file in rest if "val" in file.name]
    if not found:
        raise DataError(f"{root} has no *{split}*.parquet; name the files of that split so")
    return found


def _images(file: Path, rows: int) -> Iterator[bytes]:
    """Yield the first ``rows`` images of ``file``; one without bytes is empty."""
    with _readable(file), pq.ParquetFile(file, memory_map=True) as parquet:
        leaf = _leaf(file, parquet.schema_arrow)
        for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=[leaf], use_threads=False):
            if rows <= 0:
                return
            column = batch.column(0)
            values = column.field("bytes") if pa.types.is_struct(column.type) else column
            for value in values.slice(0, rows):
                yield value.as_py() or b""
            rows -= len(values)


def _leaf(file: Path, schema: Any) -> str:
    """Return the path of the column that holds the bytes."""
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


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turn what a missing or damaged file raises into one sentence."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"{file} cannot be read as Parquet ({reason}); fetch or write it again"
        ) from error
