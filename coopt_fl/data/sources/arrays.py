"""Images as arrays in memory, or in files of the folder ``data.root``, which are memory-mapped.

For each split the folder holds ``SPLIT-images.npy``, uint8 (N, H, W) or (N, H, W, 3). If sizes
differ, it is uint8 (bytes,), beside ``SPLIT-sizes.npy``, int64 (N, 2). Labels, if known, are in
``SPLIT-labels.npy``, int64 (N,).
"""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError, OutputError
from coopt_fl.core.files import atomic, expanded, is_file
from coopt_fl.data.source import ArraySource, NoSplitError, Source

NAME = "arrays"
PARTS = ("images", "sizes", "labels")
LARGEST = 1 << 24
"""Largest height or width of an image: products of larger ones may not fit into 64 bits."""

Pixels = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Arrays:
    """One split.

    Attributes:
        images: uint8 (N, H, W) or (N, H, W, 3); if sizes differ (bytes,), each image (H, W, 3).
        sizes: int64 (N, 2), height and width of each image, if they differ.
        labels: int64 (N,), if they are known.
    """

    images: Pixels
    sizes: Ints | None = None
    labels: Ints | None = None

    def source(self, limit: int | None = None) -> Source:
        """Return the images as a source, all or only the first ones."""
        if self.sizes is None:
            return ArraySource(NAME, self.images[:limit])
        return RaggedSource(self.images, self.sizes[:limit])

    def save(self, folder: Path, split: str) -> None:
        """Write the files of a split, the images last, which make the split exist.

        Raises:
            OutputError: the files cannot be written.
        """
        remove(folder, split)
        for part in reversed(PARTS):
            array = getattr(self, part)
            if array is not None:
                with atomic(_file(folder, split, part)) as file:
                    np.save(file, array)


class RaggedSource(Source):
    """RGB images of several sizes, concatenated.

    Args:
        pixels: uint8 (bytes,), each image as (H, W, 3); bytes after the last one are ignored.
        sizes: int64 (N, 2), height and width of each image.
    """

    def __init__(self, pixels: Pixels, sizes: Ints) -> None:
        super().__init__(NAME, len(sizes))
        self._sizes, self._ends = sizes, np.cumsum(3 * sizes.prod(axis=1))
        self._pixels = pixels[: self._ends[-1]]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the sizes and bytes."""
        digest = hashlib.sha256(b"ragged ")
        digest.update(np.ascontiguousarray(self._sizes, "<i8").data)
        digest.update(np.ascontiguousarray(self._pixels).data)
        return digest.hexdigest()

    def _read(self, ids: Ints) -> list[Tensor]:
        images = []
        for id in ids.tolist():
            height, width = self._sizes[id].tolist()
            end = int(self._ends[id])
            flat = np.array(self._pixels[end - 3 * height * width : end])
            images.append(torch.from_numpy(flat).view(height, width, 3).permute(2, 0, 1))
        return images


def remove(folder: Path, split: str) -> None:
    """Remove the files of a split, the images first.

    Raises:
        OutputError: a file cannot be removed.
    """
    for part in PARTS:
        file = _file(folder, split, part)
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove {file}: {error.strerror}") from error


def images(data: DataConfig, split: str) -> Source:
    """Open the images of a split."""
    return _load(data, split).source(data.limit)


def labels(data: DataConfig, split: str) -> Ints | None:
    """Read the labels of a split."""
    found = _load(data, split).labels
    return None if found is None else np.array(found[: data.limit], np.int64)


def _load(data: DataConfig, split: str) -> Arrays:
    """Map the files of a split.

    Raises:
        NoSplitError: there are none.
        DataError: they are damaged.
    """
    folder = expanded(data.root or "")
    files = {part: _file(folder, split, part) for part in PARTS}
    there = {part: file for part, file in files.items() if os.path.lexists(file)}
    if "images" not in there:
        is_file(files["images"], DataError)  # raises if the folder is locked
        raise NoSplitError(f"there is no {files['images']}; see data.root")
    held: dict[str, NDArray[Any]] = {}
    for part, file in there.items():
        if not is_file(file, DataError):
            raise DataError(f"{file} is no regular file, or a link that leads to none; mend it")
        try:
            held[part] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{file} cannot be read as an array ({error})") from error
    found = Arrays(**held)
    if problem := _problem(found):
        raise DataError(f"{folder}: {split}-{problem}; save them again")
    return found


def _problem(arrays: Arrays) -> str:
    """Return what is wrong with the arrays of a split; "" if nothing is."""
    images, sizes, labels = arrays.images, arrays.sizes, arrays.labels
    actual = f"are {images.dtype} {images.shape}"
    if sizes is None:
        if (
            images.dtype != np.uint8
            or images.ndim not in (3, 4)
            or images.shape[3:] not in ((), (3,))
        ):
            return f"images {actual}, not uint8 (N, H, W) or (N, H, W, 3)"
        if not images.size:
            return f"images {actual}, so that there are none"
        rows = len(images)
    else:
        if images.dtype != np.uint8 or images.ndim != 1:
            return f"images {actual}, not uint8 (bytes,), as beside sizes"
        if sizes.dtype != np.int64 or sizes.ndim != 2 or sizes.shape[1] != 2:
            return f"sizes are {sizes.dtype} {sizes.shape}, not int64 (N, 2)"
        if not len(sizes):
            return "sizes have no rows, so that there are no images"
        if sizes.min() < 1 or sizes.max() > LARGEST:
            return (
                f"sizes hold {sizes.min()} to {sizes.max()}, and not only heights and widths from "
                f"1 to {LARGEST}"
            )
        if (needed := 3 * sum(sizes.prod(axis=1).tolist())) > len(images):
            return f"images have {len(images):,} bytes, but by their sizes {needed:,}"
        rows = len(sizes)
    if labels is not None and (labels.dtype != np.int64 or labels.shape != (rows,)):
        return f"labels are {labels.dtype} {labels.shape}, not int64 ({rows},), one for each image"
    return ""


def _file(folder: Path, split: str, part: str) -> Path:
    return folder / f"{split}-{part}.npy"
