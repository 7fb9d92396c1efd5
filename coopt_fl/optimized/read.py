"""Reading an optimized dataset: ids, targets and provenance, and pairs with its images.

Targets can be mapped from ``.npy`` files in the user's cache instead of being read into memory."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl.core.cache import cache_dir
from coopt_fl.core.errors import ConfigError, DataError, VerificationError
from coopt_fl.core.files import atomic, make_folder
from coopt_fl.optimized.block import Rows, all_rows, block_digest, dataset_digest
from coopt_fl.optimized.provenance import Provenance, read_provenance

if TYPE_CHECKING:
    from coopt_fl.data import Source


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


@dataclass(frozen=True)
class OptimizedDataset:
    """An optimized dataset in memory or memory-mapped, rows in the order of the files.

    Attributes:
        path: the dataset folder.
        ids: int64 (N,), row of each sample in the source's train split.
        targets: float16 (N, n).
        participants: int16 (N,), index into ``provenance.contributors``.
        provenance: the manifest.
        parts: widths of what stands side by side in a target, such as several teachers' targets,
            if it does: each part gets its own head and loss.
    """

    path: Path
    ids: NDArray[np.int64]
    targets: NDArray[np.float16]
    participants: NDArray[np.int16]
    provenance: Provenance
    parts: tuple[int, ...] = ()

    @property
    def digest(self) -> str:
        """The dataset digest: equal digests mean equal ids, targets and contributors."""
        return self.provenance.digest

    @property
    def dim(self) -> int:
        """Width n of a target."""
        return self.provenance.dim

    def __len__(self) -> int:
        return len(self.ids)

    def pair(self, source: "Source") -> "PairedDataset":
        """Return (image, target) pairs with the images of ``source``.

        Raises:
            DataError: ``source`` does not hold what was optimized.
        """
        expected = self.provenance.source["fingerprint"]
        if source.fingerprint != expected:
            raise DataError(
                f"{source.name} is not the source that {self.path} was made from (fingerprint "
                f"{source.fingerprint[:12]}, expected {expected[:12]}); "
                "open the source with the same settings and files"
            )
        return PairedDataset(self, source)


class PairedDataset(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Pairs of (image uint8 (3, H, W), target float32 (n,)) for any training loop."""

    def __init__(self, dataset: OptimizedDataset, source: "Source") -> None:
        self.dataset = dataset
        self.source = source

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.source.read(self.dataset.ids[row : row + 1])[0]
        target = np.asarray(self.dataset.targets[row], dtype=np.float32)
        return image, torch.from_numpy(target)


def load(path: str | Path, *, mmap: bool = False) -> OptimizedDataset:
    """Open the optimized dataset in the folder ``path`` (or in the run folder that holds it).

    Args:
        path: what ``coopt run --out DIR`` wrote: ``DIR`` or ``DIR/dataset``.
        mmap: map the targets from a ``.npy`` file in the per-user cache, which is built of
            verified files at the first use.

    Raises:
        ConfigError: there is no such directory.
        VerificationError: there is no finished dataset, or a file is not what the manifest says.
        OutputError: there is no room for the map.
    """
    folder = dataset_folder(Path(path))
    provenance = read_provenance(folder)
    ids, targets, participants = (mapped if mmap else _in_memory)(folder, provenance)
    return OptimizedDataset(folder, ids, targets, participants, provenance)


def dataset_folder(path: Path) -> Path:
    """Return the dataset folder that ``path`` is or holds; ConfigError if there is no ``path``."""
    if not path.is_dir():
        raise ConfigError(f"no directory {path}; give what `coopt run --out` wrote")
    inside = path / "dataset"
    return inside if (inside / "provenance.json").exists() else path


def _in_memory(folder: Path, provenance: Provenance) -> Rows:
    """Read all files into new arrays."""
    try:
        ids = np.empty(provenance.rows, np.int64)
        targets = np.empty((provenance.rows, provenance.dim), np.float16)
        participants = np.empty(provenance.rows, np.int16)
    except (MemoryError, ValueError):
        raise DataError(
            f"{provenance.rows} targets of {provenance.dim} numbers are too many for this host's "
            "memory: load them with mmap=True"
        ) from None
    row = 0
    for block in all_rows(folder, provenance):
        part = slice(row, row + len(block[0]))
        row = part.stop
        ids[part], targets[part], participants[part] = block
    return ids, targets, participants
