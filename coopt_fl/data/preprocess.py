"""From uint8 images to a model's input, batched on the model's own device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from coopt_fl.errors import ConfigError

INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Preprocess:
    """What a model expects of its input.

    Attributes:
        size: side of the square input in pixels.
        resize: length that the shorter edge gets before the centre crop, at least ``size``.
        interpolation: "bilinear" or "bicubic", antialiased when shrinking as Pillow does it.
        mean: per RGB channel, of values in [0, 1].
        std: per RGB channel, of values in [0, 1].
    """

    size: int
    resize: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise ConfigError(
                f"unknown interpolation {self.interpolation!r}; "
                f"choose one of {', '.join(INTERPOLATIONS)}"
            )
        if not 0 < self.size <= self.resize:
            raise ConfigError(
                f"cannot crop {self.size} pixels out of {self.resize}; "
                "resize must be at least size, and size positive"
            )

    def __call__(
        self, images: Tensor | Sequence[Tensor], device: torch.device | str = "cpu"
    ) -> Tensor:
        """Resize the shorter edge, crop the centre, scale to [0, 1] and normalise.

        Args:
            images: uint8 (B, 3, H, W), or B tensors (3, H, W) of any sizes.
            device: where the work is done and the result stays.

        Returns:
            float32 (B, 3, size, size). Before normalisation within 1/255 of Pillow's pipeline,
            which rounds between its two passes; few pixels of a bicubic, which it also clips
            there, are up to 5/255 away.
        """
        if isinstance(images, Tensor):
            square = self._square(images, device)
        else:
            parts = [self._square(image[None], device) for image in images]
            square = torch.cat(parts) if parts else torch.empty(0, 3, self.size, self.size)
        mean = torch.tensor(self.mean, device=device).view(3, 1, 1)
        std = torch.tensor(self.std, device=device).view(3, 1, 1)
        return (square.to(device) / 255 - mean) / std

    def _square(self, images: Tensor, device: torch.device | str) -> Tensor:
        """Return (B, 3, size, size) in levels from 0 to 255 from (B, 3, H, W)."""
        if not len(images):
            return torch.empty(0, 3, self.size, self.size, device=device)
        images = images.to(device).float()
        height, width = images.shape[-2:]
        shorter = min(height, width)
        new = (self.resize * height // shorter, self.resize * width // shorter)
        if new != (height, width):
            images = functional.interpolate(
                images, new, mode=self.interpolation, align_corners=False, antialias=True
            ).clamp_(0, 255)
        top, left = (round((edge - self.size) / 2) for edge in new)
        return images[..., top : top + self.size, left : left + self.size]
