"""The page's colours: contrast by WCAG 2, distance under colour blindness by Machado (2009)."""

import re
from importlib import resources
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from coopt_fl.report.svg import SERIES

Array = NDArray[np.float64]

CSS = resources.files("coopt_fl.report").joinpath("templates/style.css").read_text()
LIGHT, CHANGED = (
    dict(re.findall(r"--([\w-]+): (#\w{6})", block))
    for block in re.findall(r":root \{([^}]*)", CSS)
)
SCHEMES = {"light": LIGHT, "dark": LIGHT | CHANGED}
SEEN = {
    "everybody": np.eye(3),
    "protanopia": np.array(
        [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]
    ),
    "deuteranopia": np.array(
        [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9690]]
    ),
    "tritanopia": np.array(
        [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]
    ),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> Array:
    value = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    dark, light = sorted(float(XYZ[1] @ linear(colour)) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def lab(rgb: Array) -> Array:
    """CIELAB of linear RGB."""
    x, y, z = np.cbrt(XYZ @ rgb.clip(0, 1) / XYZ.sum(axis=1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_and_marks_stand_out_from_the_page(scheme: str) -> None:
    colours = SCHEMES[scheme]
    for ground in (colours["paper"], colours["faint"]):
        for text in ("ink", "muted", "link", "bad"):
            assert contrast(colours[text], ground) >= 4.5, text
    for index in range(SERIES):
        assert contrast(colours[f"series-{index}"], colours["paper"]) >= 3, index


@pytest.mark.parametrize("eyes", SEEN)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_two_series_look_alike(scheme: str, eyes: str) -> None:
    seen = [lab(SEEN[eyes] @ linear(SCHEMES[scheme][f"series-{k}"])) for k in range(SERIES)]
    for one, other in combinations(range(SERIES), 2):
        apart = np.linalg.norm(seen[one] - seen[other])
        assert apart > (20 if other < 4 else 12), (one, other, apart)
