"""The columns of a dataset as ``.npy`` files, which open at once; targets are mapped, not read."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core.cache import cache_dir
from coopt_fl.core.errors import VerificationError
from coopt_fl.core.files import atomic, make_folder
from coopt_fl.optimized.block import block_digest, dataset_digest
from coopt_fl.optimized.provenance import Provenance
from coopt_fl.optimized.published import Rows, all_rows

COLUMNS = {"ids": "<i8", "targets": "<f2", "participants": "<i2"}


def mapped(folder: Path, provenance: Provenance) -> Rows:
    """Open the columns; the first time, verify the published files and build the maps of them.

    They are in the user's own cache under the dataset's digest: what lies in the dataset's folder
    may have passed through other hands, and maps are not verified again.

    Raises:
        VerificationError: a published file is not what the manifest says.
        OutputError: there is no room for the maps.
    """
    cache = cache_dir() / "targets" / provenance.digest
    try:
        return _open(cache, provenance)
    except (OSError, ValueError, EOFError):  # not there, or not whole
        make_folder(cache)
        _build(cache, folder, provenance)
        return _open(cache, provenance)


def _shapes(provenance: Provenance) -> dict[str, tuple[int, ...]]:
    rows = provenance.rows
    return {"ids": (rows,), "targets": (rows, provenance.dim), "participants": (rows,)}


def _open(cache: Path, provenance: Provenance) -> Rows:
    """Raise ValueError where a map has not the size that it should have."""
    ids, targets, participants = (
        _one(cache / f"{name}.npy", np.dtype(COLUMNS[name]), shape)
        for name, shape in _shapes(provenance).items()
    )
    return ids, targets, participants


def _one(path: Path, kind: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    column: NDArray[Any] = np.load(path, mmap_mode="r" if len(shape) > 1 else None)
    if (column.dtype, column.shape) != (kind, shape):
        raise ValueError(f"{path} is of another dataset")
    return column


def _build(cache: Path, folder: Path, provenance: Provenance) -> None:
    """Write the maps block by block; they get their names only when whole and of that digest."""
    digests: list[str] = []
    with ExitStack() as stack:
        outs = [stack.enter_context(atomic(cache / f"{name}.npy")) for name in COLUMNS]
        for out, (name, shape) in zip(outs, _shapes(provenance).items(), strict=True):
            header = {"descr": COLUMNS[name], "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
        for block in all_rows(folder, provenance):
            digests.append(block_digest(*block))
            for out, column in zip(outs, block, strict=True):
                out.write(np.ascontiguousarray(column).tobytes())
        _check_digests(digests, folder, provenance)


def _check_digests(found: list[str], folder: Path, provenance: Provenance) -> None:
    """Raise VerificationError unless the blocks that hold rows have the digests promised.

    The maps are kept by the dataset's digest, so rows of any other must not get there.
    """
    blocks = zip(provenance.block_digests, provenance.block_rows, strict=True)
    expected = [digest for digest, rows in blocks if rows]
    whole = dataset_digest(provenance.block_digests) == provenance.digest
    if found != expected or not whole:
        raise VerificationError(
            f"{folder} does not hold the targets that its digest stands for; run `coopt inspect` "
            "on it, and copy the whole dataset folder again"
        )
