"""Stems for small images: one made for 224 pixels would discard most of an image of 32 pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import nn

from coopt_fl.core.errors import ConfigError

if TYPE_CHECKING:
    from torchvision.models import VisionTransformer

MIN_GRID, MAX_GRID = 4, 8
"""Patches along one side of a small image for a vision transformer."""


def small_stem(model: nn.Module) -> None:
    """Make the first convolution 3x3 with stride 1 and drop the first max-pool, in place.

    This is the usual change for CIFAR (He et al. 2016, section 4.2). A model whose first
    convolution keeps the resolution already, as VGG's does, stays as it is.
    """
    path, first = _first(model, nn.Conv2d)
    if first is None or max(first.stride) == 1:
        return
    biased = first.bias is not None
    small = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=biased)
    model.set_submodule(path, small)
    path, pool = _first(model, nn.MaxPool2d)
    if pool is not None:
        model.set_submodule(path, nn.Identity())


def patch_side(size: int) -> int:
    """Return the side of the patches that cut an image of ``size`` pixels into 4 to 8 per side.

    Raises:
        ConfigError: No whole patch does.
    """
    for grid in range(MAX_GRID, MIN_GRID - 1, -1):
        if size % grid == 0:
            return size // grid
    raise ConfigError(
        f"a vision transformer cannot cut {size}x{size} pixels into 4 to 8 patches per side; "
        f"set student.image_size={max(MAX_GRID, size // MAX_GRID * MAX_GRID)}"
    )


def small_patches(vit: VisionTransformer, size: int) -> None:
    """Give a torchvision vision transformer patches that suit ``size`` pixels, in place."""
    patch = patch_side(size)
    projection = nn.Conv2d(3, vit.hidden_dim, patch, patch)
    nn.init.trunc_normal_(projection.weight, std=math.sqrt(1 / (3 * patch**2)))
    if projection.bias is not None:
        nn.init.zeros_(projection.bias)
    vit.conv_proj, vit.image_size, vit.patch_size = projection, size, patch


def _first(model: nn.Module, kind: type[nn.Module]) -> tuple[str, Any]:
    """Return the path of the first layer of a kind and the layer, or None without one."""
    layers = model.named_modules()
    return next(((path, layer) for path, layer in layers if isinstance(layer, kind)), ("", None))
