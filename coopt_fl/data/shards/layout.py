"""Which ids stand in which file of published shards."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARED = "shared.parquet"


@dataclass(frozen=True, eq=False)
class Layout:
    """What is published, for all participants together.

    Attributes:
        units: ids (R,) of each unit, as :func:`coopt_fl.data.make_units` gives them.
        shared: ids (S,) of the shared set.
        block_rows: ids of a block.
        audit_fraction: audit ids per id of a block.
    """

    units: list[NDArray[np.int64]]
    shared: NDArray[np.int64]
    block_rows: int
    audit_fraction: float

    def files(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Yield the path below the URL of every file, and the ids in it."""
        for number, unit in enumerate(self.units):
            yield block_path(number), unit
        yield SHARED, self.shared

    def digest(self) -> str:
        """Return the sha256 (hex) of all files' ids."""
        total = hashlib.sha256()
        for _, ids in self.files():
            total.update(len(ids).to_bytes(8, "little") + ids.astype("<i8").tobytes())
        return total.hexdigest()


def block_path(number: int) -> str:
    """Return the path below the URL of the file that holds the unit of block ``number``."""
    return f"blocks/{number:07}.parquet"
