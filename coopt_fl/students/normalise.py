"""Per-channel normalisation, measured on the images that a student is trained on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from coopt_fl.students.images import Squares

MEASURED_ROWS = 4096


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the channels R, G, B; images count from 0 to 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Tensor) -> Tensor:
        """Return uint8 (B, 3, s, s) as float32, channels_last, centred and scaled."""
        shape = (1, 3, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(shape) * 255
        std = torch.tensor(self.std, device=images.device).view(shape) * 255
        centred = images.to(torch.float32, memory_format=torch.channels_last).sub_(mean)
        return centred.div_(std)


def measure(squares: Squares) -> Normalisation:
    """Return the normalisation of up to 4,096 images, spread evenly over the rows."""
    step = -(-len(squares.rows) // MEASURED_ROWS)
    moments, pixels = torch.zeros(2, 3, dtype=torch.float64), 0
    for images, _ in squares.batches(squares.rows[::step], 64):
        values = images.cpu().double() / 255
        moments += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
        pixels += values.numel() // 3
    mean, square = moments / pixels
    std = (square - mean.square()).clamp_min(1e-6).sqrt()
    return Normalisation(_three(mean), _three(std))


def _three(values: Tensor) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
