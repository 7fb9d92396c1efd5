"""Samples and those nearest to them by their targets in the optimized dataset."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt_fl.data import Source
from coopt_fl.optimized.read import OptimizedDataset
from coopt_fl.report.parts import LeftOut
from coopt_fl.report.pictures import Labels, thumbnail
from coopt_fl.report.shared import MOST, choose

QUERIES, NEIGHBOURS = 6, 6
CHUNK = 65_536
"""Rows that are compared at once."""


@dataclass(frozen=True)
class Sample:
    """A sample as it is shown.

    Attributes:
        id: in the source's train split.
        image: data URI.
        participant: index of who assigned its target.
        label: its class; None without labels.
        similarity: cosine of its target with the query's; 1 for the query.
    """

    id: int
    image: str
    participant: int
    label: int | None
    similarity: float


def neighbours(
    dataset: OptimizedDataset, source: Source, labels: Labels, seed: int
) -> list[list[Sample]]:
    """Return seeded queries, each followed by its nearest samples in all of ``dataset``."""
    queries = choose(len(dataset), QUERIES, seed)
    rows, similarities = nearest(dataset.targets, queries, NEIGHBOURS)
    shown = np.concatenate([queries[:, None], rows], axis=1)
    close = np.concatenate([np.ones((len(queries), 1)), similarities], axis=1)
    ids = dataset.ids[shown]
    images = iter(source.read(ids.ravel()))
    return [
        [
            Sample(
                id=int(id),
                image=thumbnail(next(images)),
                participant=int(dataset.participants[row]),
                label=None if labels.classes is None else int(labels.classes[id]),
                similarity=float(similarity),
            )
            for id, row, similarity in zip(*line, strict=True)
        ]
        for line in zip(ids, shown, close, strict=True)
    ]


def nearest(
    targets: NDArray[np.float16], queries: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows nearest to the rows ``queries`` (Q,) by cosine, without themselves.

    Returns:
        Rows and cosines, both (Q, min(count, N - 1)), the nearest first.
    """
    wanted = _unit(targets[queries])
    parts = [
        wanted @ _unit(targets[start : start + CHUNK]).T for start in range(0, len(targets), CHUNK)
    ]
    cosine = np.concatenate(parts, axis=1)
    cosine[np.arange(len(queries)), queries] = -np.inf
    order = np.argsort(-cosine, axis=1, kind="stable")[:, : min(count, len(targets) - 1)]
    return order, np.take_along_axis(cosine, order, axis=1)


def agreement(dataset: OptimizedDataset, labels: Labels, seed: int) -> tuple[float, float, int]:
    """Return how often the nearest target of *another* participant is of the same class.

    Returns:
        The share of sampled rows, what chance would give, and how many rows.

    Raises:
        LeftOut: there are no labels, or one participant alone.
    """
    if labels.classes is None:
        raise LeftOut(labels.why)
    rows = choose(len(dataset), MOST, seed)
    classes, who = labels.classes[dataset.ids[rows]], dataset.participants[rows]
    if len(np.unique(who)) < 2:
        raise LeftOut("one participant alone made the targets")
    unit = _unit(dataset.targets[rows])
    cosine = np.where(who[:, None] == who, -np.inf, unit @ unit.T)
    chance = np.mean(
        [(classes[who != mine] == one).mean() for mine, one in zip(who, classes, strict=True)]
    )
    return float((classes[cosine.argmax(1)] == classes).mean()), float(chance), len(rows)


def _unit(targets: NDArray[np.float16]) -> NDArray[np.float64]:
    exact = np.asarray(targets, np.float64)
    unit: NDArray[np.float64] = exact / np.maximum(
        np.linalg.norm(exact, axis=1, keepdims=True), 1e-12
    )
    return unit
