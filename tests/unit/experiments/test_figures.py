"""Lines are means over the seeds, in bands of their standard deviation."""

from itertools import pairwise

import numpy as np
import pytest

from experiments.figures import curves, cycles


def cell(seed: int, seconds: list[float], accuracies: list[float]) -> dict:
    points = enumerate(zip(seconds, accuracies, strict=True), start=1)
    curve = [
        {"epoch": k, "samples": k, "loss": 1.0, "seconds": at, "accuracy": found}
        for k, (at, found) in points
    ]
    return {"objective": "byol", "seed": seed, "preparation s, one device": 10.0, "curve": curve}


def test_curves_and_the_numbers_below_them() -> None:
    known = {
        "cells": [cell(0, [10.0, 20.0], [0.2, 0.5]), cell(1, [20.0, 40.0], [0.4, 0.9])],
        "table": [
            {"objective": "random", "accuracy": {"mean": 0.1}},
            {"objective": "byol", "accuracy": {"mean": 0.7}},
        ],
    }
    (axis,) = curves({"digits": known}).axes
    line, untrained = axis.lines
    assert line.get_label() == "byol" and untrained.get_label() == "random"
    assert line.get_xdata() == pytest.approx([25.0, 40.0])
    assert line.get_ydata() == pytest.approx([0.3, 0.7])
    (band,) = axis.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(0.7 + np.sqrt(0.08)), "the spread of the last point"
    axis.figure.draw_without_rendering()
    places = [tick.get_window_extent() for tick in axis.get_xticklabels() if tick.get_text()]
    places += [tick.get_window_extent() for tick in axis.get_xticklabels(minor=True)]
    shown = sorted((one.x0, one.x1) for one in places if one.width)
    assert all(end < start for (_, end), (start, _) in pairwise(shown))


def test_cycles() -> None:
    cells = [
        {"rule": "oldest", "seed": seed, "cycles": [{"accuracy": seed * 0.2}, {"accuracy": 0.5}]}
        for seed in (1, 2)
    ]
    (axis,) = cycles({"digits": {"cells": cells, "table": [{"rule": "oldest"}]}}).axes
    (line,) = axis.lines
    assert list(line.get_xdata()) == [1, 2]
    assert line.get_ydata() == pytest.approx([0.3, 0.5])
