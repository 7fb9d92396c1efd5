"""Augmentation of a batch on the device, each sample by its own draw.

The draws of an epoch are made at once, one row per sample of the dataset. What happens to a
sample thus depends on the seed and its row alone, not on its batch or on the number of devices.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_CROP = 0.8
"""Side of the smallest crop, relative to the image. Mild, because a target is the target of the
whole image: a crop that loses the subject would be trained towards what it does not show."""

FARTHEST_SHIFT = 1 / 8
"""How far the crop's centre may lie from the image's, relative to the side, in x and in y."""


def draw(samples: int, seed: int) -> Tensor:
    """Return ``samples`` seeded draws: float32 (N, 4) in [0, 1) for side, x, y and flip."""
    return torch.rand(samples, 4, generator=torch.Generator().manual_seed(seed))


def augment(images: Tensor, draws: Tensor, kind: str) -> Tensor:
    """Return the images cropped (and flipped) as their draws say.

    A crop is a square of 0.8 to 1 of the side, shifted by at most 1/8 of it, resized back with
    bilinear interpolation; what lies outside the image is its reflection.

    Args:
        images: float (B, 3, s, s).
        draws: float (B, 4), rows of :func:`draw`, on the device of the images.
        kind: ``none`` (the images themselves), ``crop``, or ``crop_flip``, which mirrors half
            of them from left to right.
    """
    if kind == "none":
        return images
    side = 1 - (1 - SMALLEST_CROP) * draws[:, 0]
    # affine_grid counts from -1 to 1 over the image: a shift by the whole side is 2
    shift = (2 * draws[:, 1:3] - 1) * (2 * FARTHEST_SHIFT)
    mirror = torch.where(draws[:, 3] < 0.5, -1.0, 1.0) if kind == "crop_flip" else 1.0
    nothing = torch.zeros_like(side)
    rows = [side * mirror, nothing, shift[:, 0], nothing, side, shift[:, 1]]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3).to(images.dtype)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
