"""Reading an optimized dataset: ids, targets and provenance, and pairs with its images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from coopt_fl.errors import DataError, VerificationError
from coopt_fl.optimized.files import atomic, file_sha256
from coopt_fl.optimized.provenance import DataFile, Provenance, read_provenance

if TYPE_CHECKING:
    from coopt_fl.data import Source


@dataclass(frozen=True)
class OptimizedDataset:
    """An optimized dataset in memory or memory-mapped, rows in the order of the files.

    Attributes:
        path: the dataset folder.
        ids: int64 (N,), row of each sample in the source's train split.
        targets: float16 (N, n).
        participants: int16 (N,), index into ``provenance.contributors``.
        provenance: the manifest.
    """

    path: Path
    ids: NDArray[np.int64]
    targets: NDArray[np.float16]
    participants: NDArray[np.int16]
    provenance: Provenance

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
        mmap: map the targets from one ``.npy`` file, built (and verified) at the first use.

    Raises:
        VerificationError: there is no finished dataset, or a file is not what the manifest says.
    """
    folder = dataset_folder(Path(path))
    provenance = read_provenance(folder)
    ids = np.empty(provenance.rows, np.int64)
    participants = np.empty(provenance.rows, np.int16)
    mapped = folder / ".cache" / f"targets-{provenance.digest[:16]}.npy"
    if not mmap:
        targets = np.empty((provenance.rows, provenance.dim), np.float16)
        _fill(folder, provenance, ids, participants, targets)
    else:
        if not mapped.exists():
            _build(mapped, folder, provenance)
        targets = np.load(mapped, mmap_mode="r")
        _fill(folder, provenance, ids, participants, None)
    return OptimizedDataset(folder, ids, targets, participants, provenance)


def dataset_folder(path: Path) -> Path:
    """Return the dataset folder that ``path`` is or holds."""
    inside = path / "dataset"
    return inside if (inside / "provenance.json").exists() else path


def verified(folder: Path, file: DataFile) -> Path:
    """Return the path of ``file`` after comparing its sha256.

    Raises:
        VerificationError: it is missing or changed.
    """
    path = folder / file.path
    if not path.is_file():
        raise VerificationError(f"{path} is missing; copy the whole dataset folder again")
    if file_sha256(path) != file.sha256:
        raise VerificationError(f"{path} has changed since it was published; copy it again")
    return path


def row_groups(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield the row groups of a published file; raise VerificationError where unreadable."""
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise VerificationError(f"{path} is not readable: {error}") from None


def targets_of(table: pa.Table) -> NDArray[np.float16]:
    """Return the target column as float16 (R, n)."""
    column = table.column("target").combine_chunks()
    flat: NDArray[np.float16] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(table), -1)


def _fill(
    folder: Path,
    provenance: Provenance,
    ids: NDArray[np.int64],
    participants: NDArray[np.int16],
    targets: NDArray[np.float16] | None,
) -> None:
    """Read all files into the arrays given; ``targets`` None: only the other two columns."""
    columns = ["id", "participant"] + (["target"] if targets is not None else [])
    row = 0
    for file in provenance.files:
        path = verified(folder, file) if targets is not None else folder / file.path
        for group in row_groups(path, columns):
            part = slice(row, row + len(group))
            row = part.stop
            if row > len(ids):
                raise VerificationError(f"{path} holds more rows than the provenance says")
            ids[part] = group.column("id").to_numpy()
            participants[part] = group.column("participant").to_numpy()
            if targets is not None:
                targets[part] = targets_of(group)
    if row != len(ids):
        raise VerificationError(f"{folder} holds {row} rows, its provenance says {len(ids)}")


def _build(mapped: Path, folder: Path, provenance: Provenance) -> None:
    """Write the verified targets as one ``.npy``; it gets its name only when whole."""
    mapped.parent.mkdir(exist_ok=True)
    header = {
        "descr": "<f2",
        "fortran_order": False,
        "shape": (provenance.rows, provenance.dim),
    }
    with atomic(mapped) as out:
        np.lib.format.write_array_header_1_0(out, header)
        for file in provenance.files:
            for group in row_groups(verified(folder, file), ["target"]):
                out.write(np.ascontiguousarray(targets_of(group)).tobytes())
