"""t-SNE panels: the same points coloured by participant, and by class."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from openTSNE import TSNE

from coopt_fl.core.seeding import derive_seed
from coopt_fl.optimized.read import OptimizedDataset
from coopt_fl.report.collect import Run
from coopt_fl.report.figures import points
from coopt_fl.report.parts import LeftOut
from coopt_fl.report.shared import MOST, Ids, Views, choose, unit
from coopt_fl.report.svg import SERIES
from coopt_fl.targets.linear import principal_scores

FEWEST = 12
"""Fewest points for a t-SNE."""

PERPLEXITY = 30.0

Values = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Cloud:
    """Targets (N, D) to draw, of the samples ``ids`` (N,), by the participants ``who`` (N,)."""

    title: str
    targets: NDArray[np.float32]
    ids: Ids
    who: Ids


def tsne_panels(
    run: Run, anchor: str, dataset: OptimizedDataset, labels: Ids | None, views: Views | None
) -> list[Values]:
    """Return panels of the shared set before and after alignment, or of the optimized dataset.

    Returns:
        A row for each colouring, participant or class: ``title``; ``legend``, pairs of series (-1
        for the others) and name; ``figures``, pairs of title and SVG.

    Raises:
        LeftOut: there are too few samples.
    """
    names = [one.name for one in dataset.provenance.contributors]
    clouds = _shared(views, names) if views else [_fused(dataset, run.seed)]
    places = [embed(cloud.targets, run.seed) for cloud in clouds]
    people = dict(enumerate(names[:SERIES]))
    if len(names) > SERIES:
        people[-1] = f"{len(names) - SERIES} other participants"
    colourings = [("participant", [cloud.who for cloud in clouds], people)]
    if labels is not None:
        classes = [labels[cloud.ids] for cloud in clouds]
        groups, legend = _ten(classes)
        colourings.append(("class", groups, legend))
    rows = []
    for kind, groups, legend in colourings:
        figures = [
            (
                cloud.title,
                points(
                    f"{anchor}-{kind}-{number}",
                    f"t-SNE of {len(place)} targets, {cloud.title.lower()}; colour: {kind}",
                    place,
                    group,
                    derive_seed(run.seed, "report", "layers"),
                ),
            )
            for number, (cloud, place, group) in enumerate(zip(clouds, places, groups, strict=True))
        ]
        rows.append({"title": kind, "legend": list(legend.items()), "figures": figures})
    return rows if len(names) > 1 else rows[1:] or rows


def _shared(views: Views, names: list[str]) -> list[Cloud]:
    who = np.repeat([names.index(name) for name in views.names], len(views.ids))
    ids = np.tile(views.ids, len(views.names))
    return [
        Cloud(title, np.concatenate(list(targets)), ids, who)
        for title, targets in (("Before alignment", views.before), ("After", views.after))
    ]


def _fused(dataset: OptimizedDataset, seed: int) -> Cloud:
    rows = choose(len(dataset), MOST, seed)
    targets = np.asarray(dataset.targets[rows], np.float32)
    who = dataset.participants[rows].astype(np.int64)
    return Cloud("The optimized dataset", targets, dataset.ids[rows], who)


def _ten(classes: list[Ids]) -> tuple[list[Ids], dict[int, str]]:
    """Return groups and legend of the ten most frequent classes; other or no class is -1."""
    known = np.concatenate(classes)
    found, counts = np.unique(known[known >= 0], return_counts=True)
    kept = np.sort(found[np.argsort(-counts, kind="stable")[:SERIES]])
    legend = {index: str(label) for index, label in enumerate(kept)}
    if len(found) > SERIES:
        legend[-1] = f"{len(found) - SERIES} other classes"
    elif (known < 0).any():
        legend[-1] = "no class"
    places = {label: index for index, label in enumerate(kept)}
    return [np.array([places.get(label, -1) for label in one]) for one in classes], legend


def embed(targets: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Return t-SNE coordinates (N, 2) of targets (N, D), compared by cosine.

    It runs on one thread and with exact neighbours, so that a seed always gives the same picture.

    Raises:
        LeftOut: there are fewer than 12 targets.
    """
    if len(targets) < FEWEST:
        raise LeftOut(f"{len(targets)} samples are too few for a t-SNE; it needs {FEWEST}")
    units = unit(targets)
    fitted = TSNE(
        perplexity=min(PERPLEXITY, (len(units) - 1) / 3),
        initialization="pca",
        neighbors="exact",
        negative_gradient_method="bh",
        n_jobs=1,
        random_state=derive_seed(seed, "report", "tsne") % 2**32,
    ).fit(units)
    places = torch.tensor(np.asarray(fitted, np.float64))
    flat = principal_scores(places - places.mean(dim=0), 2)  # t-SNE's orientation is arbitrary
    laid: NDArray[np.float64] = flat.numpy()
    return laid
