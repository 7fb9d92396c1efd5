"""Colour operations on float (B, 3, h, w) in [0, 1], each sample with its own factor (B,).

They compute torchvision's adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue,
rgb_to_grayscale, gaussian_blur and solarize for a whole batch on its device.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def each(factor: Tensor) -> Tensor:
    """Return one value per sample (B,) as (B, 1, 1, 1)."""
    return factor[:, None, None, None]


def brighten(images: Tensor, factor: Tensor) -> Tensor:
    """Return the images multiplied by a factor."""
    return (images * each(factor)).clamp(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Interpolate from the images' mean grey (factor 0) to the images (factor 1) and beyond."""
    mean = grey(images).mean((1, 2, 3))
    return torch.lerp(each(mean), images, each(factor)).clamp(0, 1)


def saturate(images: Tensor, factor: Tensor) -> Tensor:
    """Interpolate from the grey images (factor 0) to the images (factor 1) and beyond."""
    return torch.lerp(grey(images), images, each(factor)).clamp(0, 1)


def rotate_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Return the images with their hue (HSV) rotated by ``turns`` full turns."""
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    red, green, blue = images.unbind(1)
    sector = torch.where(
        value == red,
        (green - blue) / chroma,
        torch.where(value == green, 2 + (blue - red) / chroma, 4 + (red - green) / chroma),
    )
    hue = torch.where(chroma > 0, sector, 0.0) + 6 * turns[:, None, None]

    def channel(offset: int) -> Tensor:
        k = (offset + hue) % 6
        return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], dim=1)


def grey(images: Tensor) -> Tensor:
    """Return the luma (ITU-R 601), (B, 1, h, w)."""
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Return the images blurred by a Gaussian of ``sigma`` pixels; 0 leaves a sample unchanged.

    The kernel is a tenth of the side wide (Chen et al. 2020); the border is padded by reflection.
    """
    batch, channels, height, width = images.shape
    reach = max(1, round(0.05 * min(height, width)))
    places = torch.arange(-reach, reach + 1, device=images.device)
    weights = torch.exp(-0.5 * (places / sigma.clamp_min(1e-3)[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = F.pad(images, (reach,) * 4, mode="reflect").reshape(
        1, batch * channels, height + 2 * reach, -1
    )
    flat = F.conv2d(flat, weights[:, None, :, None], groups=batch * channels)
    flat = F.conv2d(flat, weights[:, None, None, :], groups=batch * channels)
    return flat.view(batch, channels, height, width)


def solarise(images: Tensor) -> Tensor:
    """Return the images with all values of at least 0.5 inverted."""
    return torch.where(images >= 0.5, 1 - images, images)
