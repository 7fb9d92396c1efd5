"""Preprocessing compared with torchvision on Pillow images, with which priors were trained."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode, v2

from coopt_fl.core.errors import ConfigError
from coopt_fl.data import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(427, 640), (640, 427), (97, 131), (64, 64), (33, 201), (224, 224)]


def photos() -> list[Tensor]:
    """Two photographs, cut to sizes that are even, odd, tall, wide, small and square."""
    whole = load_sample_images().images
    images = []
    for place, (height, width) in enumerate(SIZES):
        image = Image.fromarray(whole[place % 2])
        image = image.rotate(90, expand=True) if height > width else image
        cut = np.asarray(image)[:height, :width]
        images.append(torch.from_numpy(cut.copy()).permute(2, 0, 1))
    return images


def reference(image: Tensor, size: int, resize: int, interpolation: str) -> Tensor:
    chain = v2.Compose(
        [
            v2.Resize(resize, InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    result: Tensor = chain(Image.fromarray(image.permute(1, 2, 0).numpy()))
    return result


def levels(ours: Tensor, theirs: Tensor) -> Tensor:
    """Differences in grey levels of 255."""
    return ((ours - theirs) * torch.tensor(STD).view(3, 1, 1) * 255).abs()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "resize"), [(96, 96), (224, 256), (65, 71)])
def test_like_torchvision_on_pillow(size: int, resize: int, interpolation: str) -> None:
    images = photos()
    ours = Preprocess(size, resize, interpolation, MEAN, STD)(images)
    assert ours.shape == (len(images), 3, size, size) and ours.dtype == torch.float32
    for image, mine in zip(images, ours, strict=True):
        differences = levels(mine, reference(image, size, resize, interpolation))
        assert differences.mean() < 0.3
        # Pillow rounds between its passes, and clips there what bicubic overshoots.
        assert (differences > 1.01).float().mean() < 0.002
        assert differences.max() < (1.01 if interpolation == "bilinear" else 6)


@pytest.mark.parametrize(("interpolation", "most"), [("bilinear", 1.01), ("bicubic", 5.01)])
@pytest.mark.parametrize(("size", "resize"), [(96, 96), (224, 256), (65, 71)])
def test_bytes_are_resized_like_floats(
    size: int, resize: int, interpolation: str, most: float
) -> None:
    """A GPU resizes in float32; this is the tolerance between device classes."""
    for image in photos():
        height, width = image.shape[1:]
        new = [resize * edge // min(height, width) for edge in (height, width)]
        resized = torch.nn.functional.interpolate(
            image[None].float(), new, mode=interpolation, antialias=True
        ).clamp(0, 255)
        top, left = (round((edge - size) / 2) for edge in new)
        expected = resized[..., top : top + size, left : left + size]
        ours = Preprocess(size, resize, interpolation, MEAN, STD).square(image[None])
        assert ours.dtype == torch.uint8
        differences = (ours.float() - expected).abs()
        assert differences.mean() < 0.3
        assert differences.max() < most


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_one_image_is_the_same_in_any_company(interpolation: str) -> None:
    preprocess = Preprocess(48, 56, interpolation, MEAN, STD)
    images = photos()
    mixed = preprocess(images)
    for image, row in zip(images, mixed, strict=True):
        assert torch.allclose(preprocess(image[None])[0], row, atol=1e-5)
    same = torch.stack([images[0], images[0].flip(2)])
    assert torch.allclose(preprocess(same), preprocess(list(same)), atol=1e-5)


def test_no_resize_is_an_exact_crop() -> None:
    image = photos()[3]
    ours = Preprocess(20, 64, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(image[None])[0]
    assert torch.equal((ours * 255).round().to(torch.uint8), image[:, 22:42, 22:42])


def test_normalisation_by_channel() -> None:
    white = torch.full((1, 3, 9, 9), 255, dtype=torch.uint8)
    ours = Preprocess(4, 8, "bicubic", (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))(white)
    expected = torch.tensor([1.0, 3.0, 0.5]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("nothing", [[], torch.empty(0, 3, 9, 9, dtype=torch.uint8)])
def test_nothing_gives_nothing(nothing: Sequence[Tensor] | Tensor) -> None:
    assert Preprocess(4, 8, "bilinear", MEAN, STD)(nothing).shape == (0, 3, 4, 4)


def test_input_is_left_alone() -> None:
    image = photos()[3][None]
    before = image.clone()
    Preprocess(64, 64, "bilinear", MEAN, STD)(image)
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    ("size", "resize", "interpolation"), [(9, 8, "bilinear"), (0, 8, "bilinear"), (8, 8, "lanczos")]
)
def test_impossible_settings_are_refused(size: int, resize: int, interpolation: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot crop|unknown interpolation"):
        Preprocess(size, resize, interpolation, MEAN, STD)


def test_a_strip_takes_no_more_memory_than_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strip of 1 x 5,000 pixels, resized as a whole, would be 96 x 480,000."""
    made: list[int] = []
    interpolate = functional.interpolate

    def watched(images: Tensor, size: tuple[int, int], **options: Any) -> Tensor:
        made.append(math.prod(size))
        return interpolate(images, size, **options)

    monkeypatch.setattr(functional, "interpolate", watched)
    strip = torch.zeros(1, 3, 1, 5000, dtype=torch.uint8)
    strip[..., 2400:2600] = 200
    for images in (strip, strip.mT):
        square = Preprocess(96, 96, "bilinear", MEAN, STD).square(images)
        assert square.shape == (1, 3, 96, 96) and (square == 200).all()
    assert max(made) <= 16 * 96 * 96
