"""The probe after every epoch: the images of both splits are read once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.runtime import pick_device
from coopt_fl.data import open_source
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.images import Squares, open_squares
from coopt_fl.students.probe import BATCH, Encoded, chosen_rows, split_labels


@dataclass(frozen=True)
class Judged:
    """What a student's features are worth: accuracy in [0, 1] or None, and :func:`spread`."""

    accuracy: float | None
    spread: float | None


@dataclass(frozen=True)
class Split:
    """The images of a split, on the device where they fit, and their labels (R,) if any."""

    squares: Squares
    labels: Tensor | None


class Judge:
    """Probes students of one image size, again and again.

    Args:
        data: Where the images and labels are.
        limit: Most rows of each split; a seeded choice, always the same.
    """

    def __init__(self, data: DataConfig, limit: int | None = None) -> None:
        self.limit = limit
        self._data = data
        self._splits: dict[int, list[Split]] = {}

    def __call__(self, student: LoadedStudent) -> Judged:
        """Return the probe's accuracy on the test split, and the spread of the features.

        Raises:
            ConfigError: The GPU has too little memory.
            DataError: The images cannot be read.
        """
        student.model.to(pick_device())  # where the images are
        size = student.image_size
        if size not in self._splits:
            self._splits[size] = self._open(size)
        found = [_encode(student, split) for split in self._splits[size]]
        if len(found) < 2:
            return Judged(None, spread(found[0][0]))
        train, test = ((x, y) for x, y in found if y is not None)
        return Judged(Encoded(train, test).accuracy(), spread(test[0]))

    def _open(self, size: int) -> list[Split]:
        """Return both splits, or the training images alone where one has no labels."""
        splits: list[Split] = []
        for name in ("train", "test"):
            labels = split_labels(self._data, name)
            if labels is None and splits:
                return splits[:1]
            source = open_source(self._data, name)
            rows = chosen_rows(len(source.ids), self.limit)
            on_error = self._data.on_error
            squares = open_squares(source, source.ids[rows], size, pick_device(), on_error)
            told = None if labels is None else torch.from_numpy(labels[rows])
            splits.append(Split(squares, told))
            if labels is None:
                break
        return splits


def spread(features: Tensor) -> float:
    """Return how far features (N, m) are from collapse: 0 where all point the same way.

    The mean over the columns of the standard deviation of the L2-normalised features, times the
    root of m (Chen and He 2021, section 4.1): 1 for an isotropic distribution.
    """
    unit = F.normalize(features.double())
    return float(unit.std(0).mean() * unit.shape[1] ** 0.5)


def _encode(student: LoadedStudent, split: Split) -> tuple[Tensor, Tensor | None]:
    """Return features (R, m) and labels (R,) of a split."""
    features, seen = [], []
    for images, rows in split.squares.batches(split.squares.rows, BATCH[pick_device().type]):
        features.append(student.features(images))
        seen.append(rows.cpu())
    x = torch.cat(features)
    return x, None if split.labels is None else split.labels[torch.cat(seen)].to(x.device)
