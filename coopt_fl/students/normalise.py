"""Per-channel normalisation, measured on the images that a student is trained on."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.core.errors import DataError
from coopt_fl.students.images import Squares

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
