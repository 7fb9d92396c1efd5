"""The colour operations equal torchvision's, sample by sample."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from coopt_fl.students.augment import colour

BATCH = 6

Operation = Callable[[Tensor, Tensor], Tensor]
One = Callable[[Tensor, float], Tensor]


@pytest.fixture
def images() -> Tensor:
    """Random colours, among them black, white, grey, and pixels with two equal channels."""
    images = torch.rand(BATCH, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    images[0] = 0
    images[1] = 1
    images[2] = images[2, :1]
    images[3, 1] = images[3, 0]
    return images


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (colour.brighten, tv.adjust_brightness, 0.2, 1.8),
        (colour.contrast, tv.adjust_contrast, 0.2, 1.8),
        (colour.saturate, tv.adjust_saturation, 0.2, 1.8),
        (colour.rotate_hue, tv.adjust_hue, -0.5, 0.5),
    ],
)
def test_a_factor_does_what_torchvision_does(
    images: Tensor, ours: Operation, theirs: One, low: float, high: float
) -> None:
    factor = torch.linspace(low, high, BATCH)
    expected = [theirs(one, float(by)) for one, by in zip(images, factor, strict=True)]
    torch.testing.assert_close(ours(images, factor), torch.stack(expected), atol=2e-5, rtol=0)


def test_grey_is_torchvisions(images: Tensor) -> None:
    torch.testing.assert_close(colour.grey(images), tv.rgb_to_grayscale(images))


def test_solarisation_is_torchvisions(images: Tensor) -> None:
    torch.testing.assert_close(colour.solarise(images), tv.solarize(images, 0.5))


@pytest.mark.parametrize("side", [40, 96])
def test_blur_is_torchvisions(side: int) -> None:
    images = torch.rand(BATCH, 3, side, side, generator=torch.Generator().manual_seed(1))
    sigma = torch.linspace(0.1, 2.0, BATCH)
    kernel = [2 * round(0.05 * side) + 1] * 2
    expected = [
        tv.gaussian_blur(one, kernel, [float(by)] * 2)
        for one, by in zip(images, sigma, strict=True)
    ]
    torch.testing.assert_close(colour.blur(images, sigma), torch.stack(expected))


def test_a_blur_of_nothing_leaves_the_image(images: Tensor) -> None:
    torch.testing.assert_close(colour.blur(images, torch.zeros(BATCH)), images)
