"""Random views of images, and the random numbers that they are made with."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from coopt_fl.students.augment import colour
from coopt_fl.students.augment.colour import each

DRAWS = 14
"""Number of uniform random numbers that one view of one sample needs."""

MASK = (1 << 64) - 1


def draw_view(rows: Tensor, seed: int) -> Tensor:
    """Return float32 (B, DRAWS), uniform in [0, 1), on the device of ``rows``.

    Args:
        rows: int64 (B,): the samples' rows in the dataset.
        seed: The seed of this view in this epoch.
    """
    columns = torch.arange(1, DRAWS + 1, device=rows.device)
    counter = rows.long()[:, None] * DRAWS + columns
    mixed = _mix(_mix(counter * _signed(0x9E3779B97F4A7C15) + _signed(seed)))
    return (_shifted(mixed, 40)).to(torch.float32) / (1 << 24)


def _mix(x: Tensor) -> Tensor:
    """Apply the finaliser of SplitMix64 (Steele, Lea, Flood 2014) to int64 x, modulo 2^64."""
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Return x >> bits with x taken as unsigned; torch's shift would repeat the sign bit."""
    return (x >> bits) & (MASK >> bits)


def _signed(value: int) -> int:
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


@dataclass(frozen=True)
class View:
    """Random resized crop, flip, colour jitter, grey, blur, solarisation, in this order.

    Probabilities apply to each sample separately, and a step that is not drawn leaves the sample
    unchanged. The four factors of the colour jitter are drawn as in torchvision's ColorJitter, but
    always applied in the order below, where torchvision's order is random.

    Attributes:
        size: Side of the view relative to the image's.
        scale: Range of the crop's area relative to the image's.
        ratio: Range of the crop's width over its height, drawn on a logarithmic scale.
        flip: Probability of mirroring left and right.
        jitter: Probability of the colour jitter: brightness, contrast, saturation and hue together.
        brightness: Half-width of the factor's range around 1.
        contrast: See ``brightness``.
        saturation: See ``brightness``.
        hue: Half-width of the rotation's range, as a fraction of a full turn.
        grey: Probability of conversion to grey.
        blur: Probability of a Gaussian blur of 0.1 to 2 pixels.
        solarise: Probability of inverting all values of at least 0.5.
    """

    size: float = 1.0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.2
    blur: float = 0.0
    solarise: float = 0.0

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return one view of each image.

        Args:
            images: float (B, 3, s, s) in [0, 1].
            draws: float (B, DRAWS) of :func:`coopt_fl.students.augment.view.draw_view`.

        Returns:
            float (B, 3, v, v) in [0, 1], with v = ``size`` s.
        """
        u = draws.unbind(1)
        seen = self._crop(images, *u[:5])
        seen = self._colour(seen, u[5] < self.jitter, *u[6:10])
        if self.grey:
            seen = torch.where(each(u[10] < self.grey), colour.grey(seen), seen)
        if self.blur:
            sigma = torch.where(u[11] < self.blur, 0.1 + 1.9 * u[12], 0.0)
            seen = colour.blur(seen, sigma)
        if self.solarise:
            seen = torch.where(each(u[13] < self.solarise), colour.solarise(seen), seen)
        return seen

    def _crop(
        self, images: Tensor, area: Tensor, shape: Tensor, x: Tensor, y: Tensor, flip: Tensor
    ) -> Tensor:
        """Return bilinearly resized, randomly mirrored crops, clipped to the image's sides."""
        if self.scale == (1.0, 1.0) and self.size == 1.0 and not self.flip:
            return images
        area = self.scale[0] + (self.scale[1] - self.scale[0]) * area
        low, high = map(math.log, self.ratio)
        root = torch.exp((low + (high - low) * shape) / 2)
        width, height = (area.sqrt() * root).clamp(max=1), (area.sqrt() / root).clamp(max=1)
        mirror = torch.where(flip < self.flip, -1.0, 1.0)
        nothing = torch.zeros_like(width)
        # affine_grid's coordinates run from -1 to 1, so the crop's centre can move by 1 - width
        rows = [width * mirror, nothing, (2 * x - 1) * (1 - width)]
        rows += [nothing, height, (2 * y - 1) * (1 - height)]
        theta = torch.stack(rows, dim=1).view(-1, 2, 3).to(images.dtype)
        side = round(self.size * images.shape[-1])
        grid = F.affine_grid(theta, [len(images), 3, side, side], align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _colour(self, images: Tensor, chosen: Tensor, *draws: Tensor) -> Tensor:
        """Apply the colour jitter to the ``chosen`` images."""
        changes = (
            (self.brightness, colour.brighten),
            (self.contrast, colour.contrast),
            (self.saturation, colour.saturate),
        )
        for (width, change), draw in zip(changes, draws, strict=False):
            if width:
                least = max(0.0, 1 - width)
                factor = least + (1 + width - least) * draw
                images = change(images, torch.where(chosen, factor, 1.0))
        if self.hue:
            turns = torch.where(chosen, self.hue * (2 * draws[3] - 1), 0.0)
            images = colour.rotate_hue(images, turns)
        return images
