"""Cut ids into blocks and units, and draw the shared set."""

import math
import shlex

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.places import is_url
from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.seeding import derive_seed

FEWEST_SHARED = 4

FITTED = ("imagefolder", "parquet", "webdataset", "manifest", "hf")
"""Sources that ``coopt config --fit`` supports."""


def make_blocks(ids: NDArray[np.int64], block_rows: int, seed: int) -> list[NDArray[np.int64]]:
    """Cut a seeded permutation of ``ids`` into blocks of ``block_rows``; the last may be shorter.

    Every id is in exactly one block. Each block's ids ascend, so that files are read in order.
    """
    shuffled = np.random.default_rng(derive_seed(seed, "blocks")).permutation(ids)
    starts = range(0, len(ids), block_rows)
    return [np.sort(shuffled[start : start + block_rows]) for start in starts]


def make_units(
    blocks: list[NDArray[np.int64]], fraction: float, seed: int
) -> list[NDArray[np.int64]]:
    """Return the unit of each block: its own ids and its audit ids, ascending together.

    The audit ids of a block of R ids are ceil(``fraction`` R) ids of other blocks, at most all of
    them. If blocks are random samples, a participant cannot tell them from the block's own. They
    depend on the seed and the block's number alone, not on who owns what.

    Args:
        blocks: from :func:`make_blocks`; no id is in two of them.
        fraction: audit ids per id of the block, at least 0.
        seed: the seed of the run.
    """
    ids = np.concatenate(blocks) if blocks else np.empty(0, np.int64)
    units, start = [], 0
    for number, block in enumerate(blocks):
        others = len(ids) - len(block)
        size = min(math.ceil(fraction * len(block)), others)
        generator = np.random.default_rng(derive_seed(seed, "audit", number))
        places = generator.choice(others, size=size, replace=False) if size else np.empty(0, int)
        places[places >= start] += len(block)  # skip the block's own ids
        units.append(np.sort(np.concatenate([block, ids[places]])))
        start += len(block)
    return units


def shared_set(
    ids: NDArray[np.int64], size: int, seed: int, data: DataConfig | None = None
) -> NDArray[np.int64]:
    """Return the shared set S: ``size`` of ``ids``, drawn by seed, ascending.

    If ``data`` is given, an error names the command that fits the sizes to these images.

    Raises:
        DataError: ``size`` is below 4 or above the number of ids.
    """
    if not FEWEST_SHARED <= size <= len(ids):
        problem = (
            f"shared.size={size} does not fit a source of {len(ids)} images: "
            f"choose at least {FEWEST_SHARED} and at most {len(ids)}"
        )
        raise DataError(advised(problem, data) if data else problem)
    generator = np.random.default_rng(derive_seed(seed, "shared"))
    return np.sort(generator.choice(ids, size=size, replace=False))


def among(ids: NDArray[np.int64], ascending: NDArray[np.int64]) -> NDArray[np.bool]:
    """Return a mask of the ``ids`` that are in ``ascending``, which may be much longer."""
    places = np.searchsorted(ascending, ids)
    found: NDArray[np.bool] = places < len(ascending)
    found[found] = ascending[places[found]] == ids[found]
    return found


def advised(sentence: str, data: DataConfig) -> str:
    """Append the command that fits all sizes to ``data`` to a sentence about a size.

    A sentence that names neither ``shared.size`` nor ``optimize.block_rows`` stays as it is, as
    does any sentence about a source that the command does not support.
    """
    about_sizes = "shared.size" in sentence or "optimize.block_rows" in sentence
    if data.source not in FITTED or not data.root or is_url(data.root) or not about_sizes:
        return sentence
    return (
        f"{sentence}; `coopt config --fit {shlex.quote(data.root)}` suits all sizes to the images"
    )
