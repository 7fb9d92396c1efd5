"""Figures of a table's results: one panel for each study, each row with its spread over seeds."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from coopt_fl.core.extras import install_hint
from coopt_fl.students.curve import Point

try:
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter
except ModuleNotFoundError:
    print(f"error: figures need matplotlib: {install_hint('report')}", file=sys.stderr)
    sys.exit(2)

Known = dict[str, Any]
Draw = Callable[[dict[str, Known]], Figure]
"""Draws a figure from the results of each study."""

WIDTH, ROW = 5.2, 0.3
INK, MARK = "#333333", "#2f6fc4"
MARKERS = "os^Dv<>P"


def panel(draw: Callable[[Axes, Known], float]) -> Draw:
    """Return a function that draws a panel for each study, side by side.

    ``draw`` fills the panel of one study, and returns the height that it needs in inches.
    """

    def figure(found: dict[str, Known]) -> Figure:
        whole = Figure(dpi=110, layout="constrained")
        axes = whole.subplots(1, len(found), squeeze=False)[0]
        heights = [draw(axis, known) for axis, known in zip(axes, found.values(), strict=True)]
        whole.set_size_inches(WIDTH * len(found), max(heights))
        for axis, name in zip(axes, found, strict=True):
            axis.set_title(name, loc="left", fontsize=10, color=INK)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8)
            axis.xaxis.label.set_fontsize(8)
            axis.yaxis.label.set_fontsize(8)
        return whole

    return figure


@panel
def dots(axis: Axes, known: Known) -> float:
    """Draw each row's accuracy, or else its first measure, with its spread over seeds."""
    rows = known["table"][::-1]
    name = measures(rows)[0]
    for place, row in enumerate(rows):
        value = row[name]
        axis.errorbar(value["mean"], place, xerr=value["std"], fmt="o", color=MARK, capsize=2)
    axis.set_yticks(range(len(rows)), [label(row) for row in rows])
    axis.set_xlabel(name)
    axis.grid(axis="x", alpha=0.3)
    return 1.2 + ROW * len(rows)


@panel
def curves(axis: Axes, known: Known) -> float:
    """Draw each row's accuracy over seconds, including preparation."""
    _curves(axis, known, prepared=True)
    axis.legend(fontsize=7, frameon=False)
    return 3.8


CLOCKS = {"training alone": False, "targets and alignment counted, on one device": True}


def clocks(found: dict[str, Known]) -> Figure:
    """Draw accuracy over seconds by two clocks, as two panels for each study."""
    figure = Figure(figsize=(2 * WIDTH, 3.8 * len(found)), dpi=110, layout="constrained")
    axes = figure.subplots(len(found), len(CLOCKS), squeeze=False, sharey="row")
    for line, (name, known) in zip(axes, found.items(), strict=True):
        for axis, (clock, prepared) in zip(line, CLOCKS.items(), strict=True):
            _curves(axis, known, prepared=prepared)
            axis.set_title(f"{name}, {clock}", loc="left", fontsize=10, color=INK)
            axis.spines[["top", "right"]].set_visible(False)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _curves(axis: Axes, known: Known, *, prepared: bool) -> None:
    found = [(row, [one for one in _cells(known, row) if "curve" in one]) for row in known["table"]]
    trained = [(row, cells) for row, cells in found if cells]
    colours = 10 if len(trained) <= 10 else 20
    axis.set_prop_cycle("color", colormaps[f"tab{colours}"](range(colours)))
    for row, cells in trained:  # the same order, and so the same colours, in every panel
        x, y = np.moveaxis(np.array([_probed(cell, prepared) for cell in cells]), -1, 0)
        _band(axis, x.mean(axis=0), y, next(iter(row.values())))
    untrained = next(row["accuracy"]["mean"] for row in known["table"] if "random" in row.values())
    axis.axhline(untrained, color=INK, linewidth=0.8, linestyle=":", label="random")
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    counted = "seconds, preparation included" if prepared else "seconds of training"
    axis.set(xlabel=counted, ylabel="probe accuracy")


@panel
def cycles(axis: Axes, known: Known) -> float:
    """Draw each row's accuracy after every cycle."""
    for row in known["table"]:
        y = [[cycle["accuracy"] for cycle in cell["cycles"]] for cell in _cells(known, row)]
        _band(axis, range(1, len(y[0]) + 1), y, label(row))
    axis.set(xlabel="cycle", ylabel="probe accuracy")
    axis.legend(title="shard taken over, old shards", title_fontsize=7, fontsize=7, frameon=False)
    return 3.4


@panel
def points(axis: Axes, known: Known) -> float:
    """Draw accuracy over uniformity, with a point for each row."""
    for row in known["table"]:
        x, y = row["uniformity"]["mean"], row["accuracy"]["mean"]
        axis.plot(x, y, "o", color=MARK, markersize=4)
        axis.annotate(label(row), (x, y), fontsize=6, xytext=(3, 3), textcoords="offset points")
    axis.set(xlabel="uniformity (lower is more spread out)", ylabel="probe accuracy")
    return 3.6


def lines(over: str, measure: str, **only: object) -> Draw:
    """Return a function that draws ``measure`` over the numeric setting ``over``.

    There is a line for each combination of the other settings. Only rows with the settings ``only``
    are drawn.
    """

    @panel
    def draw(axis: Axes, known: Known) -> float:
        groups: dict[str, list[Known]] = {}
        for row in known["table"]:
            if only.items() <= row.items():
                name = label({key: row[key] for key in row if key not in (over, *only)})
                groups.setdefault(name, []).append(row)
        for name, rows in groups.items():
            mean, spread = ([row[measure][part] for row in rows] for part in ("mean", "std"))
            axis.errorbar([row[over] for row in rows], mean, spread, fmt=".-", label=name)
        axis.set(xscale="log", xlabel=over, ylabel=measure)
        axis.legend(fontsize=6, frameon=False)
        return 4.6

    return draw


def scatters(found: dict[str, Known]) -> Figure:
    """Draw scatter plots of targets: one line of panels per study, one panel per row."""
    rows = len(next(iter(found.values()))["table"])
    figure = Figure(figsize=(13, 4.4 * len(found)), dpi=90, layout="constrained")
    axes = figure.subplots(len(found), rows, squeeze=False)
    for line, (name, known) in zip(axes, found.items(), strict=True):
        for axis, row in zip(line, known["table"], strict=True):
            _scatter(axis, next(c for c in known["cells"] if c["targets"] == row["targets"]))
            agree = f"{row['accuracy']['mean']:.0%} agree across participants"
            axis.set_title(f"{name}, {row['targets']}: {agree}", loc="left", fontsize=10)
    return figure


def _scatter(axis: Axes, cell: Known) -> None:
    """Draw each target: its colour is the class, its shape the participant."""
    places, owners, labels = (np.array(cell[key]) for key in ("places", "owners", "labels"))
    for owner in np.unique(owners):
        x, y = places[owners == owner].T
        axis.scatter(
            x, y, c=labels[owners == owner], cmap="tab10", marker=MARKERS[owner % len(MARKERS)],
            s=12, alpha=0.75, linewidths=0,
        )  # fmt: skip
    axis.set(xticks=[], yticks=[])


def points_of(cell: Known) -> list[Point]:
    """Return a training's curve, with CPU seconds if known.

    CPU seconds are the time on an otherwise idle host, see :class:`experiments.clocks.CpuClock`.
    """
    return [Point(**point | {"seconds": seconds_at(cell, point)}) for point in cell["curve"]]


def seconds_at(cell: Known, point: Known) -> float:
    """Return the CPU seconds of training up to a point of a curve if known, else its seconds."""
    pace = cell.get("epoch cpu s")
    return float(pace * point["epoch"] if pace else point["seconds"])


def _probed(cell: Known, prepared: bool) -> list[tuple[float, float]]:
    """Return (seconds, accuracy) of each probe."""
    before = cell["preparation s, one device"] if prepared else 0.0
    probed = [point for point in points_of(cell) if point.accuracy is not None]
    return [(before + point.seconds, point.accuracy or 0.0) for point in probed]


def _cells(known: Known, row: Known) -> list[Known]:
    """Return the cells of a row, one for each seed."""
    return [cell for cell in known["cells"] if settings_of(row).items() <= cell.items()]


def _band(axis: Axes, x: ArrayLike, y: ArrayLike, name: str) -> None:
    """Draw the mean of y (seeds, points) over x (points) in a band of its standard deviation."""
    seeds = np.asarray(y, np.float64)
    mean, spread = seeds.mean(axis=0), seeds.std(axis=0, ddof=min(1, len(seeds) - 1))
    (line,) = axis.plot(x, mean, marker=".", markersize=4, linewidth=1.2, label=name)
    band = mean - spread, mean + spread
    axis.fill_between(x, *band, color=line.get_color(), alpha=0.12, linewidth=0)


def measures(rows: list[Known]) -> list[str]:
    """Return the names of the measures, accuracy first."""
    found = (key for row in rows for key, value in row.items() if isinstance(value, dict))
    return sorted(dict.fromkeys(found), key=lambda name: name != "accuracy")


def settings_of(row: Known) -> Known:
    """Return a row's settings, without its measures."""
    return {key: value for key, value in row.items() if not isinstance(value, dict)}


def label(row: Known) -> str:
    """Return a row's settings as text."""
    return ", ".join(_word(key, value) for key, value in settings_of(row).items())


def _word(key: str, value: object) -> str:
    if isinstance(value, str):
        return value.removeprefix("timm:tf_").replace(":tf_", ":").replace("@bundled", "")
    return f"{key} {value}"
