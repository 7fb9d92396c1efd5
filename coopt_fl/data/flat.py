"""Images concatenated in one file, with offsets for random access."""

import os
from array import array
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np

from coopt_fl.core.cache import cached


class FlatCopy:
    """A file with ``rows`` images, followed by their offsets, int64 (rows + 1,).

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self._path, self._rows = path, rows
        self._file = path.open("rb")
        end = os.fstat(self._file.fileno()).st_size - 8 * (rows + 1)
        self._offsets = np.fromfile(self._file, np.int64, offset=end)
        if (self._offsets[0], self._offsets[-1]) != (0, end):
            raise ValueError(f"{path} is damaged")

    def __getitem__(self, row: int) -> bytes:
        start, end = self._offsets[row : row + 2].tolist()
        return os.pread(self._file.fileno(), end - start, start)

    def __reduce__(self) -> tuple[type["FlatCopy"], tuple[Path, int]]:
        return FlatCopy, (self._path, self._rows)  # an open file stays in its process


def flat_copy(path: Path, rows: int, images: Iterable[bytes]) -> FlatCopy:
    """Open the copy at ``path`` in the cache, or make it of the first ``rows`` ``images``.

    Raises:
        OutputError: there is no room, or the cache cannot be written.
    """

    def make(path: Path) -> None:
        write_flat(path, islice(images, rows))

    return cached(path, lambda: FlatCopy(path, rows), make)


def write_flat(path: Path, images: Iterable[bytes]) -> int:
    """Write ``images`` to a file that :class:`FlatCopy` reads, and return how many there are."""
    ends = array("q", [0])
    with path.open("wb") as file:
        for image in images:
            ends.append(ends[-1] + file.write(image))
        file.write(ends.tobytes())
    return len(ends) - 1
