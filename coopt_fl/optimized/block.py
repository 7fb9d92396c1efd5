"""A block: the targets of some samples, the unit of plan, resume, publication and audit."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Block:
    """Targets of one block, rows by ascending id.

    Attributes:
        ids: int64 (R,), ascending.
        targets: float16 (R, n).
        participants: int16 (R,), index of each row's contributor, -1 where several were merged.
        skipped: int64, ids of the block whose images could not be read.
        seconds: time that its contributor spent on it.
    """

    ids: NDArray[np.int64]
    targets: NDArray[np.float16]
    participants: NDArray[np.int16]
    skipped: NDArray[np.int64]
    seconds: float

    @cached_property
    def digest(self) -> str:
        """The sha256 of the rows, computed once."""
        return block_digest(self.ids, self.targets, self.participants)


def block_digest(
    ids: NDArray[np.int64], targets: NDArray[np.float16], participants: NDArray[np.int16]
) -> str:
    """Return the sha256 over (id int64 LE, target float16 LE, participant int16 LE) per row.

    Args:
        ids: (R,), ascending.
        targets: (R, n).
        participants: (R,).
    """
    width = targets.shape[1]
    rows = np.empty(
        len(ids), dtype=[("id", "<i8"), ("target", "<f2", (width,)), ("participant", "<i2")]
    )
    rows["id"], rows["target"], rows["participant"] = ids, targets, participants
    return hashlib.sha256(rows.view(np.uint8).data).hexdigest()


def dataset_digest(blocks: Iterable[str]) -> str:
    """Return the sha256 of the block digests (as bytes) in block order."""
    total = hashlib.sha256()
    for digest in blocks:
        total.update(bytes.fromhex(digest))
    return total.hexdigest()
