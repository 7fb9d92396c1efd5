"""One batch as it is read, here or in a worker process."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.data.source import CorruptImage, Source

Fit = Callable[[Tensor], Tensor]
"""What becomes of an image where it is read: uint8 (1, 3, H, W) to uint8 (1, 3, h, w)."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What came of reading some ids.

    The images travel between processes as one tensor, for each tensor takes a file descriptor.

    Attributes:
        ids: int64 (B,) that could be read.
        pixels: uint8, the images (H, W, 3) one after the other.
        sizes: int64 (B, 2), the height and width of each.
        failures: one error for each image that could not be read.
    """

    ids: NDArray[np.int64]
    pixels: Tensor
    sizes: NDArray[np.int64]
    failures: list[CorruptImage]

    def images(self) -> Tensor | list[Tensor]:
        """Return uint8 (B, 3, H, W) where all have one size, else B tensors (3, H, W)."""
        if len(self.ids) and (self.sizes == self.sizes[0]).all():
            return self.pixels.view(-1, *self.sizes[0].tolist(), 3).permute(0, 3, 1, 2)
        runs = self.pixels.split((3 * self.sizes.prod(axis=1)).tolist())
        pairs = zip(runs, self.sizes.tolist(), strict=True)
        return [run.view(*size, 3).permute(2, 0, 1) for run, size in pairs]


def read_batch(source: Source, ids: NDArray[np.int64], fit: Fit | None = None) -> Reading:
    """Read ``ids``; where one is corrupt, read one by one and set the corrupt ones apart."""
    try:
        return _packed(ids, source.read(ids), [], fit)
    except CorruptImage:
        images, failures = {}, []
        for id in ids.tolist():
            try:
                images[id] = source.read(np.array([id]))[0]
            except CorruptImage as error:
                failures.append(error)
        return _packed(np.array(list(images), dtype=np.int64), list(images.values()), failures, fit)


def _packed(
    ids: NDArray[np.int64], images: list[Tensor], failures: list[CorruptImage], fit: Fit | None
) -> Reading:
    if fit is not None:
        images = [fit(image[None])[0] for image in images]
    runs = [image.permute(1, 2, 0).reshape(-1) for image in images]
    pixels = torch.cat([torch.empty(0, dtype=torch.uint8), *runs])
    sizes = np.array([image.shape[1:] for image in images], dtype=np.int64).reshape(-1, 2)
    return Reading(ids, pixels, sizes, failures)
