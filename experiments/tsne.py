"""What alignment does to targets: ``python -m experiments.tsne --scale cpu``.

The accuracy of this table is no student's: it is how often the nearest target of *another*
participant is of the same class, which is chance where participants mean different things by a
target. The figure shows the first seed's targets by t-SNE; colour is the class, shape the
participant.
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances

from coopt_fl.data import split_labels
from coopt_fl.report.tsne import embed
from experiments.table import Cell, Lab, Study, experiment

ALIGNMENTS = {
    "not aligned": {"reference": "best", "solver": "none"},
    "aligned to the best prior": {"reference": "best"},
    "aligned to the consensus": {"reference": "consensus"},
}
MARKERS = "os^Dv<>P"
SHOWN = 1200
"""Most targets that are compared and drawn; a seeded choice."""


def settings(study: Study) -> list[Cell]:
    """Return a row for each way to align."""
    return [{"targets": how} for how in ALIGNMENTS]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Compare targets across participants, and lay those of the first seed out in the plane."""
    made = lab.collaborate(cell["seed"], **ALIGNMENTS[cell["targets"]])
    rows = lab.shared(min(SHOWN, len(lab.all)), 0)
    targets, owners = made.targets[rows], made.participants[rows]
    known = split_labels(lab.study.data, "train")
    assert known is not None, "this figure needs labels"
    labels = known[rows]
    found: Cell = {"accuracy": across(targets, owners, labels)}
    if cell["seed"] == lab.study.seeds[0]:
        places = embed(targets, seed=0)
        found["places"] = [[round(float(v), 1) for v in place] for place in places]
        found["owners"], found["labels"] = owners.tolist(), labels.tolist()
    return found


def across(
    targets: NDArray[np.float32], owners: NDArray[np.int16], labels: NDArray[np.int64]
) -> float:
    """Return the share of rows whose nearest row (by cosine) of another participant agrees."""
    distance = pairwise_distances(targets, metric="cosine")
    distance[owners[:, None] == owners] = np.inf
    return float((labels[distance.argmin(1)] == labels).mean())


def draw(results: Path, out: Path) -> None:
    """Draw a line of panels for each study, one for each way to align."""
    found = json.loads(results.read_text())
    figure = Figure(figsize=(13, 4.4 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), len(ALIGNMENTS), squeeze=False)
    for line, (name, known) in zip(axes, found.items(), strict=True):
        for axis, row in zip(line, known["table"], strict=True):
            cell = next(c for c in known["cells"] if c["targets"] == row["targets"])
            scatter(axis, cell)
            agree = f"{row['accuracy']['mean']:.0%} agree across participants"
            axis.set_title(f"{name}, {row['targets']}: {agree}", loc="left", fontsize=10)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90, metadata={"Software": None})


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


app = experiment(__name__, settings, measure, draw)
