"""``trivial:DIM``: no model, a seeded random linear map of a 4x4 thumbnail, for scale tests."""

import torch
from torch import Tensor, nn

from coopt_fl.core.errors import PriorError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data.image import Preprocess
from coopt_fl.priors.spec import NOTHING, PriorSpec

_SIDE = 4
_HALF = (0.5, 0.5, 0.5)


class RandomMap(nn.Module):
    """A fixed random linear map of the flattened image, (B, 3, 4, 4) -> (B, DIM)."""

    weight: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        inputs = 3 * _SIDE * _SIDE
        generator = torch.Generator().manual_seed(derive_seed(0, "trivial", dim))
        weight = torch.randn(dim, inputs, generator=generator) / inputs**0.5
        self.register_buffer("weight", weight)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, 4, 4) to features (B, DIM)."""
        return nn.functional.linear(images.flatten(1), self.weight)


def check(spec: PriorSpec) -> None:
    """Require the name to be a width."""
    if not spec.name.isdecimal() or int(spec.name) < 1:
        raise PriorError("DIM in trivial:DIM must be a whole number from 1 on")


def load(spec: PriorSpec) -> tuple[nn.Module, Preprocess]:
    """Build the map; the name is its width DIM."""
    return RandomMap(int(spec.name)), Preprocess(_SIDE, _SIDE, "bilinear", _HALF, _HALF)


def license(spec: PriorSpec) -> str:
    """Say that there is nothing to license."""
    return NOTHING
