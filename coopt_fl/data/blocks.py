"""How ids are cut into blocks, and which of them every participant sees."""

import numpy as np
from numpy.typing import NDArray

from coopt_fl.errors import DataError
from coopt_fl.seeding import derive_seed

FEWEST_SHARED = 4


def make_blocks(ids: NDArray[np.int64], block_rows: int, seed: int) -> list[NDArray[np.int64]]:
    """Cut a seeded permutation of ``ids`` into blocks of ``block_rows``; the last may be shorter.

    Every id stands in exactly one block, and each block's ids ascend, for files are read in order.
    """
    shuffled = np.random.default_rng(derive_seed(seed, "blocks")).permutation(ids)
    starts = range(0, len(ids), block_rows)
    return [np.sort(shuffled[start : start + block_rows]) for start in starts]


def shared_set(ids: NDArray[np.int64], size: int, seed: int) -> NDArray[np.int64]:
    """Return the shared set S: ``size`` of ``ids``, drawn by seed, ascending.

    Raises:
        DataError: ``size`` is below 4 or above the number of ids.
    """
    if not FEWEST_SHARED <= size <= len(ids):
        raise DataError(
            f"shared.size={size} does not fit a source of {len(ids)} images: "
            f"choose at least {FEWEST_SHARED} and at most {len(ids)}"
        )
    generator = np.random.default_rng(derive_seed(seed, "shared"))
    return np.sort(generator.choice(ids, size=size, replace=False))
