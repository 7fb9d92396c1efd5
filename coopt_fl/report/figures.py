"""The report's figures: labeled curves, and scatter plots."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from coopt_fl.report.svg import INK, OTHERS, PAPER, series, svg

CURVES, CLOUD = (4.0, 2.8), (4.0, 3.0)
LAYERS = 8
"""Layers in which a scatter plot is drawn."""

LETTERS, LETTER = 20, 0.0158
"""Most letters of a curve's label, and the width of a letter as a share of the figure's."""

Kind = Literal["mean", "seed", "alone", "ends"]
STYLES: dict[Kind, dict[str, Any]] = {
    "mean": {"linewidth": 1.7, "marker": "o", "markevery": [-1]},
    "seed": {"linewidth": 0.8, "alpha": 0.65},
    "alone": {"linewidth": 1.0, "linestyle": (0, (4, 2.5))},
    "ends": {"linewidth": 1.1, "linestyle": (0, (0.1, 2.4)), "dash_capstyle": "round"}
    | {"marker": "o", "markevery": [0, -1]},
}
LINE: dict[str, Any] = {
    "solid_capstyle": "round",
    "markersize": 4.5,
    "markeredgecolor": PAPER,
    "markeredgewidth": 0.8,
    "clip_on": False,
}


@dataclass(frozen=True)
class Curve:
    """One line of a figure.

    Attributes:
        name: the label at its right end; empty for none.
        colour: index of its series.
        places: points (x, y), with ascending x.
        kind: "mean" is drawn strong, a single "seed" thin, one that counts the preparation of the
            slowest participant "alone" dashed, and "ends", with known first and last points only,
            dotted.
    """

    name: str
    colour: int
    places: Sequence[tuple[float, float]]
    kind: Kind = "mean"


def curves(
    name: str, alt: str, lines: Sequence[Curve], x_label: str, *, percent: bool = False
) -> Markup:
    """Return an SVG of lines over an x axis from 0, labeled at their right ends."""

    def draw(figure: Figure) -> None:
        named = [line for line in lines if line.name]
        widest = max((min(len(line.name), LETTERS) for line in named), default=0)
        right = 0.98 - widest * LETTER - (0.035 if named else 0)
        axis = figure.add_axes((0.115, 0.16, right - 0.115, 0.8))
        for line in lines:
            x, y = zip(*line.places, strict=True)
            axis.plot(x, y, color=series(line.colour), **LINE, **STYLES[line.kind])
        axis.set_xlim(0, max(line.places[-1][0] for line in lines) * 1.02 or 1)
        axis.margins(y=0.08)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(5))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        if percent:
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:.0%}"))
        axis.set_xlabel(x_label, loc="right", fontsize=8)
        if named:
            _name(axis, named)

    return svg(name, alt, CURVES, draw)


def points(
    name: str, alt: str, places: NDArray[np.float64], groups: NDArray[np.int64], seed: int
) -> Markup:
    """Return an SVG of points (N, 2), coloured by groups (N,), where -1 means "others".

    Points are drawn in random layers, so that no group hides another.
    """

    def draw(figure: Figure) -> None:
        axis = figure.add_axes((0, 0, 1, 1))
        axis.axis("off")
        order = np.random.default_rng(seed).permutation(len(places))
        for layer in np.array_split(order, LAYERS):
            for group in np.unique(groups[layer]):
                mine = places[layer[groups[layer] == group]]
                axis.add_patch(_dots(mine, OTHERS if group < 0 else series(int(group))))
        axis.update_datalim(places)
        axis.margins(0.02)
        axis.set_aspect("equal", adjustable="datalim")

    return svg(name, alt, CLOUD, draw)


def _name(axis: Axes, lines: Sequence[Curve]) -> None:
    """Write the labels in the right margin, near the lines' ends but without overlap."""
    frame = axis.transAxes
    low, high = axis.get_ylim()
    heights = _apart([(line.places[-1][1] - low) / (high - low) for line in lines], 0.074)
    for line, height in zip(lines, heights, strict=True):
        short = line.name if len(line.name) <= LETTERS else f"{line.name[: LETTERS - 1]}…"
        axis.plot(
            [1.03], [height], "o", ms=4.5, color=series(line.colour), transform=frame, clip_on=False
        )
        axis.text(1.065, height, short, va="center", color=INK, fontsize=8, transform=frame)


def _apart(heights: Sequence[float], least: float) -> NDArray[np.float64]:
    """Return heights in the same order, at least ``least`` apart, with least squared movement."""
    order = np.argsort(heights, kind="stable")
    steps = least * np.arange(len(heights))
    placed = np.empty(len(heights))
    placed[order] = isotonic_regression(np.take(heights, order) - steps).x + steps
    return placed


def _dots(places: NDArray[np.float64], colour: str) -> PathPatch:
    """Return points as one path of zero-length strokes, whose round caps make the dots."""
    vertices = np.repeat(places, 2, axis=0)
    codes = np.tile([Path.MOVETO, Path.LINETO], len(places))
    return PathPatch(
        Path(vertices, codes), fill=False, edgecolor=colour, linewidth=3.0, capstyle="round"
    )
