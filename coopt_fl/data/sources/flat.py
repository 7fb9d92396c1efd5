"""A copy of encoded images in one file, from which any of them is read at once.

A block's ids lie anywhere in the source. Parquet must decode a whole row group for one image, so
reading blocks from it directly decodes nearly every file again for every block.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core.cache import exclusive
from coopt_fl.core.errors import OutputError

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
