"""Units as files, which participants on the platform's own host write and the platform adopts.

A file holds only the bytes that the digest is computed over
(:func:`coopt_fl.optimized.block.joined`), so nothing is encoded or decoded, and ``sha256sum`` shows
the digest. The platform chooses its name.
"""

import os
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core.errors import DataError
from coopt_fl.core.files import atomic
from coopt_fl.optimized.block import row_type

Rows = NDArray[np.void]

SAFELY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
"""Flags to open a file that may be a link or a pipe."""


def unit_file(folder: Path, index: int) -> Path:
    """Return the path of the unit of block ``index``."""
    return folder / f"{index:07d}.rows"


def leave_unit(folder: Path, index: int, rows: Rows) -> None:
    """Write the rows (R,) of a unit into ``folder``, which must exist, and sync the file.

    Raises:
        OutputError: the disk is full or the folder gone.
    """
    with atomic(unit_file(folder, index)) as file:
        file.write(rows.view(np.uint8).data)


def read_unit(path: Path, width: int, count: int) -> Rows:
    """Return the ``count`` rows, with targets of ``width``, of an untrusted file.

    Raises:
        DataError: it is missing, no regular file, or of another size.
    """
    kind = row_type(width)
    expected = count * kind.itemsize
    try:
        with os.fdopen(os.open(path, SAFELY), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_size != expected:
                raise DataError(f"{path} has {about.st_size} bytes, expected a file of {expected}")
            rows, more = np.fromfile(file, kind, count), file.read(1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if len(rows) != count or more:
        raise DataError(f"{path} has changed while it was read")
    return rows
