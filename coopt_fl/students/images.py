"""The images that a student sees: uint8 squares of its own size, kept on the device if they fit.

An image is decoded, resized, cropped to the student's size and rounded to bytes on the CPU, so that
a student sees the same bits on every device, in training and in the probe. Random crops, flips
and normalisation happen per batch on the device (:mod:`coopt_fl.students.augment`).
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.core.errors import DataError
from coopt_fl.core.link import Link, feed, link_to
from coopt_fl.data import Preprocess, Source, batches
from coopt_fl.data.image import per_channel

RESIDENT_BYTES = 2 << 30
"""Images, and targets, are kept on the device if they take at most this many bytes."""

SMALLEST_SIDE, LARGEST_SIDE = 8, 224
"""Bounds in pixels of an image size chosen by :func:`own_size`."""

MEASURED = 64
"""Most images read to choose an image size for a source whose images differ in size."""

MEASURED_ROWS = 4096
"""Most images whose mean and standard deviation are computed for the normalisation."""

READ_ROWS = 512
"""Batch size while the images to keep are read."""


class Squares:
    """The images ``ids`` of a source as uint8 (3, s, s) for training and judging.

    They are kept on the device if they take at most 2 GB, else read again in every epoch.

    Attributes:
        size: Their side s in pixels.
        rows: int64 (R,), ascending: the images' indices into ``ids``. If the images are kept on
            the device, unreadable ones are not among them.

    Raises:
        DataError: An image cannot be read and ``on_error`` is not "skip".
    """

    def __init__(self, source: Source, ids: NDArray[np.int64], size: int, device: torch.device,
                 on_error: str, link: Link | None = None) -> None:  # fmt: skip
        self._source, self._ids, self._on_error = source.for_edge(size), ids, on_error
        self.size, self._device, self._link = size, device, link or link_to(device)
        self._order = np.argsort(ids)
        self.rows = torch.arange(len(ids))
        fits = len(ids) * 3 * size * size <= RESIDENT_BYTES
        self._kept = self._keep() if fits and self._link.keeps else None

    def batches(self, rows: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield uint8 (B, 3, s, s) and their rows (B,), on the device, in the order of ``rows``.

        Unreadable images are left out if ``on_error`` is "skip".
        """
        if self._kept is None:
            yield from ((images, some) for images, some, _ in self._streamed(rows, batch_size))
        else:
            (order,) = self._link.receive(self._link.send((rows,)))
            for part in torch.split(order, batch_size):
                yield self._kept[part], part

    def _keep(self) -> Tensor:
        """Read all images to the device and return them; drop unreadable ones from ``rows``."""
        images = torch.empty(
            (len(self._ids), 3, self.size, self.size),
            dtype=torch.uint8,
            device=self._device,
            memory_format=torch.channels_last,
        )
        read = [self.rows[:0]]
        for some, rows, places in self._streamed(self.rows, READ_ROWS, busy=0):
            images[rows] = some
            read.append(places)
        self.rows = torch.cat(read)
        return images

    def _streamed(
        self, rows: Tensor, batch_size: int, busy: int = 1
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield batches of images and their rows on the device, and the same rows on the CPU."""
        ids, square = self._ids[rows.numpy()], resizing(self.size).square
        read = batches(self._source, [ids], batch_size, self._on_error, fit=square, busy=busy)
        pairs = ((batch, self._rows(batch.ids)) for batch in read if len(batch.ids))
        sent = (((batch.pixels, places), (batch, places)) for batch, places in pairs)
        with closing(read), closing(feed(sent, self._link)) as arrived:
            for (pixels, some), (batch, places) in arrived:
                images = cast(Tensor, replace(batch, pixels=pixels).images)  # all of one size
                yield images, some, places

    def _rows(self, ids: NDArray[np.int64]) -> Tensor:
        """Return the indices of ``ids`` into the ids of all images."""
        places = np.searchsorted(self._ids, ids, sorter=self._order)
        return torch.from_numpy(self._order[places])


def own_size(source: Source) -> int:
    """Return an image size for ``source``: its images' shorter edge, clipped to 8 to 224 pixels.

    If the images differ in size, this is the median over up to 64 of them, spread over the source.
    """
    return int(np.clip(np.median(shorter_edges(source)), SMALLEST_SIDE, LARGEST_SIDE))


def shorter_edges(source: Source) -> list[int]:
    """Return the shorter edges in pixels of up to 64 images, spread over ``source``.

    Unreadable images are left out. If the source states one size of all images, this is a single
    edge.

    Raises:
        DataError: None of the images can be read.
    """
    if source.image_size:
        return [min(source.image_size)]
    read = batches(source, [spread_ids(source)], MEASURED, on_error="skip", workers=0)
    edges = [min(image.shape[-2:]) for batch in read for image in batch.images]
    if not edges:
        raise DataError(f"none of {MEASURED} images of {source.name} can be read; check data.root")
    return edges


def spread_ids(source: Source) -> NDArray[np.int64]:
    """Return up to 64 ids, spread evenly over ``source``."""
    return np.unique(source.ids[np.linspace(0, len(source.ids) - 1, MEASURED).astype(int)])


def resizing(
    size: int, mean: tuple[float, ...] = (0.0, 0.0, 0.0), std: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> Preprocess:
    """Return a student's preprocessing: shorter edge to ``size`` pixels, centre crop, normalise."""
    return Preprocess(size, size, "bilinear", mean, std)


def normalise(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Return float images (B, 3, s, s) of values in [0, 1], centred and scaled."""
    mean, std = (per_channel(each, images.device) for each in (preprocess.mean, preprocess.std))
    return (images - mean) / std


def measured_ids(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return up to 4,096 of a source's ids, spread evenly, to compute mean and deviation on."""
    step = -(-len(ids) // MEASURED_ROWS)
    return ids[:: max(step, 1)]


def measure(squares: Squares, rows: Tensor) -> Preprocess:
    """Return a preprocessing with the mean and standard deviation of the images in ``rows``.

    The sums are exact integers, so the order of ``rows`` does not matter.

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
    return resizing(squares.size, tuple(mean.tolist()), tuple(std.tolist()))
