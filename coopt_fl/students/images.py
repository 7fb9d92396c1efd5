"""The images that a student sees: uint8 squares of its own size, resident where they fit.

Both kinds of :class:`Squares` give the same bits for the same rows. An image is decoded, resized
and cropped to the student's size, and rounded back to uint8; cropping at random, flipping and
normalising happen per batch on the device (see :mod:`coopt_fl.students.augment`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.core.errors import DataError
from coopt_fl.data import Preprocess, Source, batches

RESIDENT_BYTES = 2 << 30
"""Up to this much, all images are kept on the device."""

LARGEST_SIDE = 224
SMALLEST_SIDE = 8
MEASURED = 64
"""Images looked at to find the side of a source whose images differ in size."""

READ_ROWS = 512


class Squares(ABC):
    """uint8 images (3, s, s) of the rows of an optimized dataset.

    Attributes:
        rows: int64 (R,), ascending: the rows whose image can be read.
    """

    rows: Tensor

    @abstractmethod
    def batches(self, rows: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield uint8 (B, 3, s, s) on the device and their rows (B,), in the order of ``rows``."""


class ResidentSquares(Squares):
    """All images on the device, decoded once."""

    def __init__(self, source: Source, ids: NDArray[np.int64], size: int, device: torch.device,
                 on_error: str) -> None:  # fmt: skip
        shape = (len(ids), 3, size, size)
        self._images = torch.empty(
            shape, dtype=torch.uint8, device=device, memory_format=torch.channels_last
        )
        reader = StreamedSquares(source, ids, size, device, on_error)
        read = []
        for images, rows in reader.batches(reader.rows, READ_ROWS):
            self._images[rows.to(device)] = images
            read.append(rows)
        self.rows = torch.cat(read) if read else torch.empty(0, dtype=torch.int64)

    def batches(self, rows: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield slices of the resident images."""
        for part in torch.split(rows.to(self._images.device), batch_size):
            yield self._images[part], part


class StreamedSquares(Squares):
    """Images read again in every epoch, by the source's own worker processes."""

    def __init__(self, source: Source, ids: NDArray[np.int64], size: int, device: torch.device,
                 on_error: str) -> None:  # fmt: skip
        self._source, self._ids, self._on_error = source, ids, on_error
        self._order = np.argsort(ids)
        self._fit = unit_range(size).square
        self._device = device
        self.rows = torch.arange(len(ids))

    def batches(self, rows: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Read, resize and crop; images that cannot be read are left out if that is allowed."""
        block = self._ids[rows.numpy()]
        for batch in batches(self._source, [block], batch_size, self._on_error, fit=self._fit):
            if len(batch.ids):
                squares = cast(Tensor, batch.images)  # of one size, and so one tensor
                yield squares.to(self._device), self._rows_of(batch.ids)

    def _rows_of(self, ids: NDArray[np.int64]) -> Tensor:
        places = np.searchsorted(self._ids, ids, sorter=self._order)
        return torch.from_numpy(self._order[places])


def unit_range(size: int) -> Preprocess:
    """Return the preprocessing to float (B, 3, s, s) in [0, 1]: shorter edge to s, centre crop."""
    return Preprocess(
        size=size, resize=size, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )


def open_squares(
    source: Source, ids: NDArray[np.int64], size: int, device: torch.device, on_error: str
) -> Squares:
    """Return the images ``ids`` of ``source``, kept on ``device`` if they take at most 2 GB.

    Raises:
        DataError: An image cannot be read and ``on_error`` is not "skip", or none can.
    """
    fits = len(ids) * 3 * size * size <= RESIDENT_BYTES
    kind = ResidentSquares if fits else StreamedSquares
    squares = kind(source, ids, size, device, on_error)
    if len(squares.rows) < 2:
        raise DataError(f"{source.name} has fewer than 2 readable images to train on")
    return squares


def own_size(source: Source) -> int:
    """Return the side that suits ``source``: its images' shorter edge, between 8 and 224 pixels.

    Where the images differ, it is the median over up to 64 of them, spread over the source.
    """
    edges = [min(source.image_size)] if source.image_size else _edges(source)
    return int(np.clip(np.median(edges), SMALLEST_SIDE, LARGEST_SIDE))


def _edges(source: Source) -> Sequence[int]:
    spread = source.ids[np.linspace(0, len(source.ids) - 1, MEASURED).astype(int)]
    found: list[int] = []
    for batch in batches(source, [np.unique(spread)], MEASURED, on_error="skip", workers=0):
        found += [min(image.shape[-2:]) for image in batch.images]
    if not found:
        raise DataError(f"none of {MEASURED} images of {source.name} can be read; see data.root")
    return found


MEASURED_ROWS = 4096


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the channels R, G, B; images count from 0 to 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Tensor) -> Tensor:
        """Return float (B, 3, s, s), counting from 0 to 1, centred and scaled."""
        shape = (1, 3, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(shape)
        std = torch.tensor(self.std, device=images.device).view(shape)
        return (images - mean) / std


def measured_ids(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of a source's ids to measure on: up to 4,096, spread evenly over them."""
    step = -(-len(ids) // MEASURED_ROWS)
    return ids[:: max(step, 1)]


def measure(squares: Squares, rows: Tensor) -> Normalisation:
    """Return the normalisation of the images in ``rows``, whatever their order.

    The sums are of whole numbers and so exact: the same images give the same bits.

    Raises:
        DataError: None of the images can be read.
    """
    moments, pixels = torch.zeros(2, 3, dtype=torch.int64), 0
    for images, _ in squares.batches(rows, 64):
        values = images.cpu().to(torch.int32)
        moments += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
        pixels += values.numel() // 3
    if not pixels:
        raise DataError("none of the images to normalise by can be read; see data.root")
    mean, square = moments.double() / pixels / torch.tensor([[255.0], [255.0**2]]).double()
    std = (square - mean.square()).clamp_min(1e-6).sqrt()
    return Normalisation(_three(mean), _three(std))


def _three(values: Tensor) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
