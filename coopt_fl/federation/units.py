"""Units as files, which participants on the platform's own host leave and the platform adopts.

A file holds the rows just as their digest is made of them (:func:`coopt_fl.optimized.block.joined`)
and nothing else, so nothing is encoded or decoded, and ``sha256sum`` shows the digest. Its name is
not the participant's to choose.
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
"""How a file is opened that may be a link or a pipe."""


def unit_file(folder: Path, index: int) -> Path:
    """Return where the rows of the unit of block ``index`` are."""
    return folder / f"{index:07d}.rows"


def leave_unit(folder: Path, index: int, rows: Rows) -> None:
    """Write the rows (R,) of a unit, synced, into ``folder``, which must be there.

    Raises:
        OutputError: the disk is full or the folder gone.
    """
    with atomic(unit_file(folder, index)) as file:
        file.write(rows.view(np.uint8).data)


def read_unit(path: Path, width: int, count: int) -> Rows:
    """Return ``count`` rows with targets of ``width`` in a file that anyone may have written.

    Raises:
        DataError: it is not there, no regular file, or of another size.
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
