import pytest
import torch
from torch.nn import functional as F

from coopt_fl.students.augment import FARTHEST_SHIFT, SMALLEST_CROP, augment, draw

SIZE = 16


@pytest.fixture
def images():
    return torch.rand(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def draws(side=0.0, x=0.5, y=0.5, flip=0.0, rows=6):
    return torch.tensor([[side, x, y, flip]]).repeat(rows, 1)


def test_none_is_the_identity(images):
    assert augment(images, draw(6, 0), "none") is images


def test_the_whole_unshifted_image_is_the_identity(images):
    assert torch.allclose(augment(images, draws(), "crop"), images, atol=1e-5)
    assert torch.allclose(augment(images, draws(flip=0.9), "crop_flip"), images, atol=1e-5)


def test_a_flip_mirrors_from_left_to_right_and_crop_never_flips(images):
    assert torch.allclose(augment(images, draws(flip=0.1), "crop_flip"), images.flip(3), atol=1e-5)
    assert torch.allclose(augment(images, draws(flip=0.1), "crop"), images, atol=1e-5)


def test_the_farthest_shift_moves_whole_pixels_and_reflects_what_is_missing(images):
    far = int(FARTHEST_SHIFT * SIZE)
    right = augment(images, draws(x=1.0), "crop")
    down = augment(images, draws(y=1.0), "crop")
    mirrored_x = torch.cat([images[..., far:], images[..., -far:].flip(3)], dim=3)
    mirrored_y = torch.cat([images[..., far:, :], images[..., -far:, :].flip(2)], dim=2)
    assert torch.allclose(right, mirrored_x, atol=1e-4)
    assert torch.allclose(down, mirrored_y, atol=1e-4)


def test_the_smallest_crop_is_the_resized_centre(images):
    """On a linear ramp, resizing the centre by bilinear interpolation has a closed form."""
    ramp = torch.linspace(-1 + 1 / SIZE, 1 - 1 / SIZE, SIZE).expand(1, 3, SIZE, SIZE)
    cropped = augment(ramp.contiguous(), draws(side=1.0, rows=1), "crop")
    assert torch.allclose(cropped, SMALLEST_CROP * ramp, atol=1e-5)


def test_no_pixel_leaves_the_range_of_its_image(images):
    out = augment(images, draw(6, 3), "crop_flip")
    assert out.min() >= images.min() - 1e-5 and out.max() <= images.max() + 1e-5


def test_the_seed_decides_and_each_sample_has_its_own_draw(images):
    assert torch.equal(draw(50, 1), draw(50, 1))
    assert not torch.equal(draw(50, 1), draw(50, 2))
    same = images[:1].repeat(6, 1, 1, 1)
    out = augment(same, draw(6, 1), "crop")
    distances = torch.cdist(out.flatten(1), out.flatten(1)) + torch.eye(6)
    assert distances.min() > 1e-3


def test_a_sample_does_not_depend_on_its_batch(images):
    rows = draw(6, 5)
    together = augment(images, rows, "crop_flip")
    alone = torch.cat([augment(images[i : i + 1], rows[i : i + 1], "crop_flip") for i in range(6)])
    assert torch.equal(together, alone)


def test_an_image_without_detail_stays_as_it_is():
    flat = torch.full((4, 3, SIZE, SIZE), 0.3)
    assert F.mse_loss(augment(flat, draw(4, 0), "crop_flip"), flat) < 1e-10
