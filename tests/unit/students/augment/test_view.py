"""Views: crops, frequencies of the random steps, and unchanged samples."""

from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from coopt_fl.students.augment.published import (
    BYOL,
    DINO,
    INSTDISC,
    MOCO,
    RELA,
    SIMCLR,
    SIMSIAM,
    SWAV,
)
from coopt_fl.students.augment.view import DRAWS, View, draw_view

SIDE = 32
BATCH = 4000
PLAIN = View(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grey=0.0)


def where(batch: int = BATCH) -> Tensor:
    """Images with a pixel's x position, from 0 to 1, as red, and its y position as green."""
    place = (torch.arange(SIDE) + 0.5) / SIDE
    x, y = place.expand(SIDE, SIDE), place[:, None].expand(SIDE, SIDE)
    return torch.stack([x, y, torch.zeros_like(x)]).expand(batch, 3, SIDE, SIDE)


def boxes(views: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return left, top, width, height of each view's crop of :func:`where`, by its inner half."""
    side = views.shape[-1]
    low, high = side // 4, side - 1 - side // 4
    row, column = views[:, 0, side // 2], views[:, 1, :, side // 2]
    width = (row[:, high] - row[:, low]) / (high - low) * side
    height = (column[:, high] - column[:, low]) / (high - low) * side
    left = row[:, low] - (low + 0.5) / side * width
    top = column[:, low] - (low + 0.5) / side * height
    return left, top, width, height


def test_crops_are_inside_and_have_the_area_and_shape_that_were_asked_for() -> None:
    view = replace(PLAIN, scale=(0.2, 0.5), ratio=(3 / 4, 4 / 3))
    left, top, width, height = boxes(view(where(), draw_view(torch.arange(BATCH), 0)))
    slack = 1e-3
    assert left.min() > -slack
    assert top.min() > -slack
    assert (left + width).max() < 1 + slack
    assert (top + height).max() < 1 + slack
    area, shape = width * height, (width / height).log()
    assert stats.kstest(area, stats.uniform(0.2, 0.3).cdf).pvalue > 1e-3
    widest = torch.tensor(4 / 3).log().item()
    assert stats.kstest(shape, stats.uniform(-widest, 2 * widest).cdf).pvalue > 1e-3
    free = left / (1 - width)
    assert stats.kstest(free, "uniform").pvalue > 1e-3


def test_a_crop_is_the_bilinear_resize_of_its_box() -> None:
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    view = replace(PLAIN, scale=(0.25, 0.25), size=0.75)  # a quarter of the area, at 24 pixels
    draws = torch.zeros(1, DRAWS)
    draws[0, 2], draws[0, 3], draws[0, 4] = 0.5, 0.25, 1.0  # box from (8, 4) to (24, 20)
    seen = view(image, draws)
    expected = F.interpolate(image[:, :, 4:20, 8:24], size=24, mode="bilinear")
    inner = (..., slice(1, -1), slice(1, -1))  # at the border the resize does not look outside
    torch.testing.assert_close(seen[inner], expected[inner], atol=1e-5, rtol=0)


def test_half_of_the_views_are_mirrored() -> None:
    views = replace(PLAIN, flip=0.5)(where(), draw_view(torch.arange(BATCH), 1))
    mirrored = views[:, 0, 0, 0] > views[:, 0, 0, -1]
    assert abs(float(mirrored.float().mean()) - 0.5) < 0.04
    torch.testing.assert_close(views[mirrored], where(int(mirrored.sum())).flip(-1))
    torch.testing.assert_close(views[~mirrored], where(int((~mirrored).sum())))


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"grey": 0.2}, 0.2),
        ({"solarise": 0.3}, 0.3),
        ({"blur": 0.6}, 0.6),
        ({"jitter": 0.8, "brightness": 0.4}, 0.8),
        ({"jitter": 0.8, "contrast": 0.4}, 0.8),
        ({"jitter": 0.8, "saturation": 0.4}, 0.8),
        ({"jitter": 0.8, "hue": 0.1}, 0.8),
    ],
)
def test_each_change_happens_to_its_share_and_to_no_other(
    changes: dict[str, float], share: float
) -> None:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(2000, 3, 8, 8, generator=generator)
    views = replace(PLAIN, **changes)(images, draw_view(torch.arange(2000), 2))
    changed = (views - images).abs().amax((1, 2, 3)) > 1e-6
    assert abs(float(changed.float().mean()) - share) < 0.04


def test_nothing_asked_for_is_nothing_done() -> None:
    images = where(3)
    assert PLAIN(images, draw_view(torch.arange(3), 0)) is images


def test_all_four_colours_are_changed_in_the_same_samples() -> None:
    both = replace(PLAIN, jitter=0.5, brightness=0.4, hue=0.1)
    images = torch.rand(500, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    draws = draw_view(torch.arange(500), 3)
    each = [replace(both, hue=0.0), replace(both, brightness=0.0)]
    first, second = [(view(images, draws) - images).abs().amax((1, 2, 3)) > 1e-6 for view in each]
    assert float((first == second).float().mean()) > 0.98


def test_a_view_of_one_sample_does_not_depend_on_the_others() -> None:
    images = torch.rand(8, 3, 40, 40, generator=torch.Generator().manual_seed(4))
    draws = draw_view(torch.arange(8), 4)
    for view in (*BYOL.large, SWAV.large[-1]):
        alone = torch.cat([view(images[i : i + 1], draws[i : i + 1]) for i in range(8)])
        torch.testing.assert_close(view(images, draws), alone, atol=1e-5, rtol=0)


PUBLISHED = {
    "simclr": SIMCLR,
    "byol": BYOL,
    "moco": MOCO,
    "simsiam": SIMSIAM,
    "swav": SWAV,
    "dino": DINO,
    "instdisc": INSTDISC,
    "rela": RELA,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_small_images_are_neither_blurred_nor_cut_into_local_views(name: str) -> None:
    for side in (8, 32, 64):
        assert all(view.blur == 0 and view.size == 1 for view in PUBLISHED[name].at(side))
    assert PUBLISHED[name].at(65) == PUBLISHED[name].at(224) == PUBLISHED[name].large


def test_local_views_have_96_pixels_of_224() -> None:
    assert [round(view.size * 224) for view in SWAV.at(224)] == [224] * 2 + [96] * 6
    assert [round(view.size * 224) for view in DINO.at(224)] == [224] * 2 + [96] * 8


JITTER = {
    "simclr": ((0.8, 0.8, 0.8, 0.2), (0.4, 0.4, 0.4, 0.1)),
    "byol": ((0.4, 0.4, 0.2, 0.1), (0.4, 0.4, 0.2, 0.1)),
    "moco": ((0.4, 0.4, 0.4, 0.1), (0.4, 0.4, 0.4, 0.1)),
    "simsiam": ((0.4, 0.4, 0.4, 0.1), (0.4, 0.4, 0.4, 0.1)),
    "swav": ((0.8, 0.8, 0.8, 0.2), (0.4, 0.4, 0.4, 0.1)),
    "dino": ((0.4, 0.4, 0.2, 0.1), (0.4, 0.4, 0.2, 0.1)),
    "instdisc": ((0.4, 0.4, 0.4, 0.4), (0.4, 0.4, 0.4, 0.4)),
    "rela": ((0.8, 0.8, 0.8, 0.2), (0.8, 0.8, 0.8, 0.2)),
}
SCALE = {
    "simclr": (0.08, 0.08),
    "byol": (0.08, 0.08),
    "moco": (0.2, 0.08),
    "simsiam": (0.2, 0.2),
    "swav": (0.14, 0.14),
    "dino": (0.14, 0.14),
    "instdisc": (0.2, 0.2),
    "rela": (0.5, 0.5),
}
"""Strengths of ColorJitter and least areas of crops, large and small, by papers and their code."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_colours_and_crops_are_those_that_were_published(name: str) -> None:
    for index, side in enumerate((224, 32)):
        for view in PUBLISHED[name].at(side):
            strengths = (view.brightness, view.contrast, view.saturation, view.hue)
            assert strengths == JITTER[name][index]
            assert (view.jitter, view.grey, view.flip) == (
                float(name == "instdisc") or 0.8,
                0.2,
                0.5,
            )
            if view.size == 1:
                assert view.scale == (SCALE[name][index], 1.0)
            else:
                assert view.scale == (0.05, 0.14)


def test_blur_and_solarisation_are_those_that_were_published() -> None:
    likely = {
        name: [(view.blur, view.solarise) for view in published.large if view.size == 1]
        for name, published in PUBLISHED.items()
    }
    twice, asymmetric = [(0.5, 0.0)] * 2, [(1.0, 0.0), (0.1, 0.2)]
    assert likely["simclr"] == likely["moco"] == likely["simsiam"] == likely["swav"] == twice
    assert likely["byol"] == likely["dino"] == asymmetric
    assert {view.blur for view in DINO.large[2:]} == {0.5}
    assert likely["instdisc"] + likely["rela"] == [(0.0, 0.0)] * 3
    assert [view.solarise for view in BYOL.small] == [0.0, 0.2]
