"""Figures of a table's results: one panel for each study, each row with its spread over seeds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike

Known = dict[str, Any]
WIDTH, ROW = 5.2, 0.3
INK, MARK = "#333333", "#2f6fc4"


def dots(results: Path, out: Path) -> None:
    """Draw each row's accuracy (its first measure, where it has none) and its spread."""
    _panels(results, out, _dots, lambda known: 1.2 + ROW * len(known["table"]))


def curves(results: Path, out: Path) -> None:
    """Draw accuracy over seconds, the preparation included, of each row."""
    _panels(results, out, _curves, lambda known: 3.8)


def points(results: Path, out: Path) -> None:
    """Draw accuracy over uniformity, a point for each row."""
    _panels(results, out, _points, lambda known: 3.6)


def cycles(results: Path, out: Path) -> None:
    """Draw accuracy after every cycle of each row."""
    _panels(results, out, _cycles, lambda known: 3.4)


def lines(over: str, measure: str, **only: object) -> Callable[[Path, Path], None]:
    """Return what draws a measure over a setting that is a number, a line for all others.

    ``only`` are settings that rows must have to be drawn.
    """

    def draw(axis: Axes, known: Known) -> None:
        groups: dict[str, list[Known]] = {}
        for row in known["table"]:
            if only.items() <= row.items():
                name = label({key: row[key] for key in row if key not in (over, *only)})
                groups.setdefault(name, []).append(row)
        for name, rows in groups.items():
            mean, spread = ([row[measure][part] for row in rows] for part in ("mean", "std"))
            axis.errorbar([row[over] for row in rows], mean, spread, fmt=".-", label=name)
        axis.set_xscale("log")
        axis.set_xlabel(over, fontsize=8)
        axis.set_ylabel(measure, fontsize=8)
        axis.legend(fontsize=6, frameon=False)

    return lambda results, out: _panels(results, out, draw, lambda known: 4.6)


def _panels(
    results: Path,
    out: Path,
    draw: Callable[[Axes, Known], None],
    height: Callable[[Known], float],
) -> None:
    found = json.loads(results.read_text())
    size = (WIDTH * len(found), max(height(known) for known in found.values()))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, (name, known) in zip(axes, found.items(), strict=True):
        draw(axis, known)
        axis.set_title(name, loc="left", fontsize=10, color=INK)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110, metadata={"Software": None})


def _dots(axis: Axes, known: Known) -> None:
    rows = known["table"]
    name = measures(rows)[0]
    for place, row in enumerate(reversed(rows)):
        value = row[name]
        axis.errorbar(value["mean"], place, xerr=value["std"], fmt="o", color=MARK, capsize=2)
    axis.set_yticks(range(len(rows)), [label(row) for row in reversed(rows)])
    axis.set_xlabel(name, fontsize=8)
    axis.grid(axis="x", alpha=0.3)


def _curves(axis: Axes, known: Known) -> None:
    for row in known["table"]:  # in every panel in the same order, and so in the same colours
        curves = [_probed(cell) for cell in _cells(known, row) if "curve" in cell]
        if curves:
            x, y = np.moveaxis(curves, -1, 0)
            _band(axis, x.mean(axis=0), y, next(iter(row.values())))
    untrained = next(row["accuracy"]["mean"] for row in known["table"] if "random" in row.values())
    axis.axhline(untrained, color=INK, linewidth=0.8, linestyle=":", label="random")
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("seconds, preparation included", fontsize=8)
    axis.set_ylabel("probe accuracy", fontsize=8)
    axis.legend(fontsize=7, frameon=False)


def _probed(cell: Known) -> list[tuple[float, float]]:
    """Return when a student was probed, in seconds with the preparation, and what came of it."""
    before = cell["preparation s, one device"]
    probed = [point for point in cell["curve"] if point["accuracy"] is not None]
    return [(before + point["seconds"], point["accuracy"]) for point in probed]


def _cycles(axis: Axes, known: Known) -> None:
    for row in known["table"]:
        y = [[cycle["accuracy"] for cycle in cell["cycles"]] for cell in _cells(known, row)]
        _band(axis, range(1, len(y[0]) + 1), y, label(row))
    axis.set_xlabel("cycle", fontsize=8)
    axis.set_ylabel("probe accuracy", fontsize=8)
    axis.legend(title="shard taken over, old shards", title_fontsize=7, fontsize=7, frameon=False)


def _cells(known: Known, row: Known) -> list[Known]:
    """Return the cells of a row, one for each seed."""
    return [cell for cell in known["cells"] if settings_of(row).items() <= cell.items()]


def _band(axis: Axes, x: ArrayLike, y: ArrayLike, name: str) -> None:
    """Draw the mean of y (seeds, points) over x (points) in a band of its standard deviation."""
    mean, spread = np.mean(y, axis=0), np.std(y, axis=0, ddof=min(1, len(np.asarray(y)) - 1))
    (line,) = axis.plot(x, mean, marker=".", markersize=4, linewidth=1.2, label=name)
    axis.fill_between(
        x, mean - spread, mean + spread, color=line.get_color(), alpha=0.12, linewidth=0
    )


def _points(axis: Axes, known: Known) -> None:
    for row in known["table"]:
        x, y = row["uniformity"]["mean"], row["accuracy"]["mean"]
        axis.plot(x, y, "o", color=MARK, markersize=4)
        axis.annotate(label(row), (x, y), fontsize=6, xytext=(3, 3), textcoords="offset points")
    axis.set_xlabel("uniformity (lower is more spread out)", fontsize=8)
    axis.set_ylabel("probe accuracy", fontsize=8)


def measures(rows: list[Known]) -> list[str]:
    """Return the names of what was measured, accuracy first."""
    names = dict.fromkeys(key for row in rows for key, value in row.items() if _measured(value))
    return sorted(names, key=lambda name: name != "accuracy")


def settings_of(row: Known) -> Known:
    """Return what tells a row from the others."""
    return {key: value for key, value in row.items() if not _measured(value)}


def label(row: Known) -> str:
    """Return what a row is, in words."""
    return ", ".join(_word(key, value) for key, value in settings_of(row).items())


def _word(key: str, value: object) -> str:
    if isinstance(value, str):
        return value.removeprefix("timm:tf_").replace(":tf_", ":").replace("@bundled", "")
    return f"{key} {value}"


def _measured(value: object) -> bool:
    return isinstance(value, dict)
