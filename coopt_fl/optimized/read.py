"""Read an optimized dataset: ids, targets and provenance, and pairs with its images.

Targets can be memory-mapped from ``.npy`` files in the user's cache.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl.core.cache import cache_dir, cached
from coopt_fl.core.errors import ConfigError, DataError, OutputError, VerificationError
from coopt_fl.core.files import is_file, is_folder
from coopt_fl.core.host import free_memory
from coopt_fl.optimized.block import Rows, all_rows, block_digest, dataset_digest
from coopt_fl.optimized.provenance import Provenance, read_provenance

if TYPE_CHECKING:
    from coopt_fl.data import Source

Transform = Callable[[torch.Tensor], torch.Tensor]
"""Transforms an image, uint8 (3, H, W); such as those of ``torchvision.transforms.v2``."""


@dataclass(frozen=True, repr=False)
class OptimizedDataset:
    """An optimized dataset, in memory or memory-mapped, with its rows in the order of the files.

    Memory-mapped targets are not pickled: another process, such as a worker of a DataLoader, opens
    the map again, or rebuilds it from the verified files if it was deleted.

    Attributes:
        path: the dataset folder.
        ids: int64 (N,), row of each sample in the source's train split.
        targets: float16 (N, n).
        participants: int16 (N,), index into ``provenance.contributors``.
        provenance: what it was made of and by whom, and its digest.
        parts: widths of the parts that a target is concatenated from, such as several teachers'
            targets; each part gets its own head and loss. Empty: a target is one part.
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

    def __repr__(self) -> str:
        return f"OptimizedDataset({len(self)} x {self.dim}, {str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        if _is_whole_map(self.targets, self.provenance):
            state |= {"targets": None, "path": self.path.resolve()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["targets"] is None:
            state["targets"] = _mapped(state["path"], state["provenance"])[1]
        vars(self).update(state)

    def pair(self, source: "Source", transform: Transform | None = None) -> "PairedDataset":
        """Return (image, target) pairs with the images of ``source``.

        Args:
            source: the images that were optimized.
            transform: applied to each image, uint8 (3, H, W). A DataLoader stacks images, so if
                they differ in size, this has to give them one. Targets are of the untransformed
                image and are not changed.

        Raises:
            DataError: ``source`` does not have the images that were optimized.
        """
        expected = self.provenance.source["fingerprint"]
        if source.fingerprint != expected:
            raise DataError(
                f"{source.name} is not the source that {self.path} was made from (fingerprint "
                f"{source.fingerprint[:12]}, expected {expected[:12]}); "
                "open the source with the same settings and files"
            )
        return PairedDataset(self, source, transform)


class PairedDataset(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Pairs of (image, target float32 (n,)) for any training loop.

    An image is uint8 (3, H, W), or what ``transform`` returns for it.
    """

    def __init__(
        self, dataset: OptimizedDataset, source: "Source", transform: Transform | None = None
    ) -> None:
        self.dataset = dataset
        self.source = source
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.source.read(self.dataset.ids[[row]])[0]
        if self.transform is not None:
            image = self.transform(image)
        target = np.asarray(self.dataset.targets[row], dtype=np.float32)
        return image, torch.from_numpy(target)


def load(path: str | Path, *, mmap: bool = False) -> OptimizedDataset:
    """Open the optimized dataset in the folder ``path`` (or in the run folder that holds it).

    Args:
        path: what ``coopt run --out DIR`` wrote: ``DIR`` or ``DIR/dataset``.
        mmap: memory-map the targets from a ``.npy`` file in the per-user cache, which the first
            use makes from verified files. If there is no cache or no room in it, the targets are
            read into memory, unless they need more than half of it.

    Raises:
        ConfigError: there is no such directory.
        VerificationError: there is no finished dataset, or a file differs from its provenance.
        OutputError: there is no room for the targets, neither in the cache nor in memory.
    """
    folder = dataset_folder(Path(path))
    provenance = read_provenance(folder)
    try:
        ids, targets, participants = (_mapped if mmap else _in_memory)(folder, provenance)
    except OutputError:
        if 2 * provenance.rows * provenance.dim > free_memory() // 2:
            raise
        ids, targets, participants = _in_memory(folder, provenance)
    return OptimizedDataset(folder, ids, targets, participants, provenance)


def dataset_folder(path: Path) -> Path:
    """Return the dataset folder that ``path`` is or holds; ConfigError if there is no ``path``."""
    if ":/" in str(path) and not is_folder(path, ConfigError):  # a URL: Path removed a slash
        raise ConfigError(f"{path} is not on this host: `coopt pull URL` fetches it")
    if not is_folder(path, ConfigError):
        raise ConfigError(f"no directory {path}; give what `coopt run --out` wrote")
    inside = path / "dataset"
    return inside if is_file(inside / "provenance.json", ConfigError) else path


def _in_memory(folder: Path, provenance: Provenance) -> Rows:
    """Read all files into new arrays."""
    try:
        columns = [np.empty(shape, dtype) for dtype, shape in _columns(provenance).values()]
    except (MemoryError, ValueError):
        raise DataError(
            f"{provenance.rows} targets of {provenance.dim} numbers are too many for this host's "
            "memory: load them with mmap=True"
        ) from None
    row = 0
    for block in all_rows(folder, provenance):
        end = row + len(block[0])
        for column, values in zip(columns, block, strict=True):
            column[row:end] = values
        row = end
    ids, targets, participants = columns
    return ids, targets, participants


def _mapped(folder: Path, provenance: Provenance) -> Rows:
    """Open the maps of the columns; the first time, build them from verified files.

    They are kept in the user's own cache, by the dataset's digest, and not beside the dataset:
    others may have written there, and maps are not verified again.
    """
    cache = _cache(provenance)
    load, make = partial(_open, cache, provenance), partial(_build, folder, provenance)
    return cached(cache, load, make)


def _cache(provenance: Provenance) -> Path:
    """Return the folder of the dataset's maps."""
    return cache_dir() / "targets" / provenance.digest


def _is_whole_map(targets: NDArray[np.float16], provenance: Provenance) -> bool:
    """Whether ``targets`` are the whole map of this dataset, not a slice or another map."""
    if not isinstance(targets, np.memmap) or isinstance(targets.base, np.ndarray):
        return False
    return str(targets.filename) == str((_cache(provenance) / "targets.npy").resolve())


def _columns(provenance: Provenance) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the dtype and shape of each column, by name."""
    rows = provenance.rows
    return {
        "ids": ("<i8", (rows,)),
        "targets": ("<f2", (rows, provenance.dim)),
        "participants": ("<i2", (rows,)),
    }


def _open(cache: Path, provenance: Provenance) -> Rows:
    """Open the maps; raise ValueError if one has another dtype or shape than expected."""
    maps: list[NDArray[Any]] = []
    for name, (dtype, shape) in _columns(provenance).items():
        path = cache / f"{name}.npy"
        maps.append(np.load(path, mmap_mode="r" if name == "targets" else None))
        if (maps[-1].dtype, maps[-1].shape) != (np.dtype(dtype), shape):
            raise ValueError(f"{path} is of another dataset")
    ids, targets, participants = maps
    return ids, targets, participants


def _build(folder: Path, provenance: Provenance, cache: Path) -> None:
    """Write the maps block by block into the new folder ``cache``.

    Raises:
        VerificationError: the rows do not have the dataset's digest, by which maps are found.
    """
    cache.mkdir()
    digests: list[str] = []
    with ExitStack() as stack:
        outs = []
        for name, (dtype, shape) in _columns(provenance).items():
            outs.append(stack.enter_context((cache / f"{name}.npy").open("wb")))
            header = {"descr": dtype, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(outs[-1], header)
        for block in all_rows(folder, provenance):
            digests.append(block_digest(*block))
            for out, column in zip(outs, block, strict=True):
                out.write(np.ascontiguousarray(column).tobytes())
    blocks = zip(provenance.block_digests, provenance.block_rows, strict=True)
    expected = [digest for digest, rows in blocks if rows]
    whole = dataset_digest(provenance.block_digests) == provenance.digest
    if digests != expected or not whole:
        raise VerificationError(
            f"{folder} does not hold the targets that its digest stands for; run `coopt inspect` "
            "on it, and copy the whole dataset folder again"
        )
