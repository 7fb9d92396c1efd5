"""What alignment does to targets.

The accuracy of this table is no student's: it is how often the nearest target of *another*
participant is of the same class, which is chance where participants mean different things by a
target. The figure shows the first seed's targets by t-SNE; colour is the class, shape the
participant.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances

from coopt_fl.report.tsne import embed
from experiments.lab import Lab
from experiments.table import Cell, table

ALIGNMENTS = {
    "not aligned": {"reference": "best", "solver": "none"},
    "aligned to the best prior": {"reference": "best"},
    "aligned to the consensus": {"reference": "consensus"},
}
MARKERS = "os^Dv<>P"
SHOWN = 1200
"""Most targets that are compared and drawn; a seeded choice."""


def across(
    targets: NDArray[np.float32], owners: NDArray[np.int16], labels: NDArray[np.int64]
) -> float:
    """Return the share of rows whose nearest row (by cosine) of another participant agrees."""
    distance = pairwise_distances(targets, metric="cosine")
    distance[owners[:, None] == owners] = np.inf
    return float((labels[distance.argmin(1)] == labels).mean())


def draw(found: dict[str, Cell]) -> Figure:
    """Draw a line of panels for each study, one for each way to align."""
    figure = Figure(figsize=(13, 4.4 * len(found)), dpi=90, layout="constrained")
    axes = figure.subplots(len(found), len(ALIGNMENTS), squeeze=False)
    for line, (name, known) in zip(axes, found.items(), strict=True):
        for axis, row in zip(line, known["table"], strict=True):
            scatter(axis, next(c for c in known["cells"] if c["targets"] == row["targets"]))
            agree = f"{row['accuracy']['mean']:.0%} agree across participants"
            axis.set_title(f"{name}, {row['targets']}: {agree}", loc="left", fontsize=10)
    return figure


def scatter(axis: Axes, cell: Cell) -> None:
    """Show each target: colour is the class, shape the participant."""
    places, owners, labels = (np.array(cell[key]) for key in ("places", "owners", "labels"))
    for owner in np.unique(owners):
        x, y = places[owners == owner].T
        axis.scatter(
            x, y, c=labels[owners == owner], cmap="tab10", marker=MARKERS[owner % len(MARKERS)],
            s=12, alpha=0.75, linewidths=0,
        )  # fmt: skip
    axis.set(xticks=[], yticks=[])


@table(lambda study: [{"targets": how} for how in ALIGNMENTS], draw)
def tsne(lab: Lab, cell: Cell) -> Cell:
    """Compare targets across participants, and lay those of the first seed out in the plane."""
    made = lab.collaborate(cell["seed"], **ALIGNMENTS[cell["targets"]])
    rows = lab.shared(min(SHOWN, len(lab.all)), 0)
    targets, owners, labels = made.targets[rows], made.participants[rows], lab.labels()[0][rows]
    found: Cell = {"accuracy": across(targets, owners, labels)}
    if cell["seed"] == lab.study.seeds[0]:
        found["places"] = embed(targets, seed=0).round(1).tolist()
        found["owners"], found["labels"] = owners.tolist(), labels.tolist()
    return found
