"""Images and labels of a run's samples, and nearest neighbours by target."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from coopt_fl.config.load import data_from
from coopt_fl.config.schema import DataConfig
from coopt_fl.data import Source, open_source
from coopt_fl.data.labels import open_labels
from coopt_fl.data.sources.downloads import DOWNLOADS, present
from coopt_fl.optimized.read import OptimizedDataset
from coopt_fl.plugins import OUTSIDE
from coopt_fl.report.collect import Run
from coopt_fl.report.parts import LeftOut, Part
from coopt_fl.report.shared import MOST, Ids, choose, unit

SIDE = 64
"""Longest side of a thumbnail in pixels."""

LOSSLESS = 32
"""Longest side in pixels of a thumbnail that is stored as PNG, because JPEG would blur it."""

Values = dict[str, Any]

QUERIES, NEIGHBOURS = 6, 6
"""Number of queries shown, and of neighbours of each."""

CHUNK = 65_536
"""Rows that are compared with the queries at once."""


def images_of(run: Run) -> Source:
    """Open the images from which the run's dataset was made.

    Raises:
        LeftOut: this host does not have these images.
        DataError: the images cannot be opened.
    """
    data = _settings(run)
    if data.source in DOWNLOADS and not present(data):
        raise LeftOut(
            f"the images of {data.source} are not on this host, and a report loads none from the "
            "network"
        )
    source = open_source(data)
    if run.provenance and source.fingerprint != run.provenance.source["fingerprint"]:
        raise LeftOut(f"the images of {data.source} on this host are not those of this dataset")
    return source


def labels_of(run: Run, images: Part[Source]) -> Ids:
    """Return the labels of ``images`` by id, to judge targets, which were made without labels.

    Raises:
        LeftOut: there are no images, or no labels.
    """
    images.there()
    data = _settings(run)
    found = open_labels(data, "train")
    if found is None:
        raise LeftOut(f"{data.source} has no labels.")
    return found


def neighbours(
    dataset: OptimizedDataset, source: Source, labels: Ids | None, seed: int
) -> list[list[Values]]:
    """Return seeded queries, each followed by its nearest neighbours in the whole ``dataset``.

    The similarity is the cosine between a sample's target and the query's.
    """
    queries = choose(len(dataset), QUERIES, seed)
    rows, similarities = nearest(dataset.targets, queries, NEIGHBOURS)
    shown = np.concatenate([queries[:, None], rows], axis=1)
    close = np.concatenate([np.ones((len(queries), 1)), similarities], axis=1)
    ids = dataset.ids[shown]
    images = iter(source.read(ids.ravel()))
    return [
        [
            {
                "id": int(id),
                "image": _thumbnail(next(images)),
                "participant": int(dataset.participants[row]),
                "label": None if labels is None or labels[id] < 0 else int(labels[id]),
                "similarity": float(similarity),
            }
            for id, row, similarity in zip(*line, strict=True)
        ]
        for line in zip(ids, shown, close, strict=True)
    ]


def nearest(
    targets: NDArray[np.float16], queries: Ids, count: int
) -> tuple[Ids, NDArray[np.float64]]:
    """Return the rows of ``targets`` nearest to the rows ``queries`` (Q,), excluding themselves.

    Returns:
        Rows and cosines, both (Q, min(count, N - 1)), the nearest first.
    """
    wanted, starts = unit(targets[queries]), range(0, len(targets), CHUNK)
    parts = [wanted @ unit(targets[start : start + CHUNK]).T for start in starts]
    cosine = np.concatenate(parts, axis=1)
    cosine[np.arange(len(queries)), queries] = -np.inf
    order = np.argsort(-cosine, axis=1, kind="stable")[:, : min(count, len(targets) - 1)]
    return order, np.take_along_axis(cosine, order, axis=1)


def agreement(dataset: OptimizedDataset, labels: Ids, seed: int) -> tuple[float, float, int]:
    """Measure how often the nearest target of *another* participant is of the same class.

    Returns:
        The share of the sampled rows, the share expected by chance, and the number of rows.

    Raises:
        LeftOut: a single participant made the targets.
    """
    rows = choose(len(dataset), MOST, seed)
    rows = rows[labels[dataset.ids[rows]] >= 0]  # -1: no label
    classes, who = labels[dataset.ids[rows]], dataset.participants[rows]
    if len(np.unique(who)) < 2:
        raise LeftOut("one participant alone made the targets")
    units = unit(dataset.targets[rows])
    cosine = np.where(who[:, None] == who, -np.inf, units @ units.T)
    chance = np.mean(
        [(classes[who != mine] == one).mean() for mine, one in zip(who, classes, strict=True)]
    )
    return float((classes[cosine.argmax(1)] == classes).mean()), float(chance), len(rows)


def _thumbnail(image: Tensor) -> str:
    """Return an image uint8 (3, H, W) as a data URI of at most 64 x 64 pixels."""
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    picture.thumbnail((SIDE, SIDE))
    kind = "png" if max(picture.size) <= LOSSLESS else "jpeg"
    buffer = io.BytesIO()
    picture.save(buffer, kind, optimize=True, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _settings(run: Run) -> DataConfig:
    data = run.config["data"]
    if str(data.get("source")).startswith(OUTSIDE):
        raise LeftOut(
            "its images come from a Python function, and no file may decide which code this "
            "command imports"
        )
    return data_from(data, [], str(run.path))
