"""What alignment does to targets: ``python -m experiments.tsne UNALIGNED ALIGNED``.

Both are output directories of ``coopt run`` on the same labeled source, the first one with
``targets.solver=none reference=best``. Each panel shows a t-SNE of the fused targets and, in its
title, how often the nearest target of *another* participant is of the same class: 1 in the number
of classes where participants mean different things by a target.
"""

import json
from pathlib import Path
from typing import Annotated

import matplotlib
import numpy as np
import typer
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances

import coopt_fl
from coopt_fl.config import from_tree
from coopt_fl.data.labels import open_labels
from coopt_fl.optimized.reader import OptimizedDataset
from coopt_fl.report.tsne import embed

MARKERS = "os^Dv<>P"


def main(
    unaligned: Path,
    aligned: Path,
    out: Annotated[Path, typer.Option()] = Path("docs/figures/tsne.png"),
    results: Annotated[Path, typer.Option()] = Path("experiments/results/tsne.json"),
) -> None:
    """Draw both datasets side by side."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), constrained_layout=True)
    found = {}
    panels = {"not aligned": unaligned, "aligned": aligned}
    for axis, (name, path) in zip(axes, panels.items(), strict=True):
        dataset = coopt_fl.load(path)
        labels = labels_of(dataset)
        draw(axis, dataset, labels)
        agreement = across(dataset, labels)
        axis.set_title(f"{name}: {agreement:.0%} agree across participants", fontsize=11)
        known = dataset.provenance
        found[name] = {
            "agreement": agreement,
            "digest": known.digest,
            "config": known.config,
            "versions": known.versions,
        }
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.savefig(out, dpi=110)
    results.write_text(json.dumps(found, indent=1) + "\n")


def labels_of(dataset: OptimizedDataset) -> NDArray[np.int64]:
    """Return the class of each row; only for looking at targets, which never saw a label."""
    data = from_tree(dataset.provenance.config, [], "the dataset").data
    labels = open_labels(data, "train")
    assert labels is not None, "this figure needs labels"
    return labels[dataset.ids]


def across(dataset: OptimizedDataset, labels: NDArray[np.int64]) -> float:
    """Return the share of rows whose nearest row (by cosine) of another participant agrees."""
    distance = pairwise_distances(dataset.targets.astype(np.float32), metric="cosine")
    distance[dataset.participants[:, None] == dataset.participants] = np.inf
    return float((labels[distance.argmin(1)] == labels).mean())


def draw(axis: Axes, dataset: OptimizedDataset, labels: NDArray[np.int64]) -> None:
    """Scatter the targets: colour is the class, shape the participant."""
    places = embed(dataset.targets.astype(np.float32), seed=0)
    for index, contributor in enumerate(dataset.provenance.contributors):
        mine = dataset.participants == index
        axis.scatter(
            *places[mine].T,
            c=labels[mine],
            cmap="tab10",
            marker=MARKERS[index % len(MARKERS)],
            s=14,
            alpha=0.75,
            linewidths=0,
            label=contributor.name,
        )
    axis.set_xticks([])
    axis.set_yticks([])


if __name__ == "__main__":
    typer.run(main)
