"""The probe: a linear classifier on frozen features, the only user of labels.

The classifier is in :mod:`coopt_fl.students.classifier`. Features of priors and students are
computed by :func:`coopt_fl.targets.optimize.encode`. Those of a student always come from the same
uint8 squares as in its training, so its score does not depend on the command or the device.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from coopt_fl.config.schema import DataConfig, StudentConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.once import read_once
from coopt_fl.core.progress import Progress
from coopt_fl.core.runtime import pick_device
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import Source, open_source, split_labels
from coopt_fl.data.class_names import class_names
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.classifier import METHODS, fit_probe
from coopt_fl.students.images import Squares, measure, measured_ids, own_size
from coopt_fl.students.initial import initial_student
from coopt_fl.students.session import enough_memory
from coopt_fl.targets.optimize import Encoded, Read, encode, represent_blocks

if TYPE_CHECKING:
    from coopt_fl.priors.prior import Prior

VERSION = 2
"""Version of the probe, incremented whenever the same student would get another score."""

BATCH = {"cuda": 256, "cpu": 32}
"""Images in a forward batch, by device; a CPU is fastest if the batch fits into its cache."""

FEWER = (
    "end other programs that use it, set a lower data.limit, or set CUDA_VISIBLE_DEVICES= to use "
    "the CPU"
)
"""Remedies for too little memory on a GPU."""

Labeled = tuple[Tensor, Tensor | None]
"""Features (R, m) of a split, and its int64 labels (R,), or None unless both splits have labels."""

FITTING = "fitting a classifier"

SHORT = 2.0
"""Seconds after which the progress of a probe is shown."""

SHOWN_ROWS = 1024
"""Images that a prior encodes between two updates of the progress."""


class Told(Protocol):
    """A callback for the progress of a probe."""

    def __call__(self, done: int, total: int, note: str = "", /) -> object:
        """Show that ``done`` of ``total`` images are encoded; ``note`` names the step after."""


def nobody(done: int, total: int, note: str = "", /) -> None:
    """Show nothing."""


def probing(progress: Progress, whom: str) -> Told:
    """Return a callback that shows the progress of the probe of ``whom`` after two seconds."""
    began = time.monotonic()

    def told(done: int, total: int, note: str = "", /) -> None:
        if time.monotonic() - began > SHORT:
            progress.show("probe", done, total, "image", f"{whom} {note}".rstrip())

    return told


def probe_student(
    student: LoadedStudent, data: DataConfig, limit: int | None = None, told: Told = nobody
) -> float | None:
    """Return a student's accuracy in [0, 1] by the linear probe.

    Args:
        student: The student.
        data: Labeled images: a classifier is fitted on the train split and judged on the test
            split.
        limit: Most rows of each split, always the same seeded choice; None for all.
        told: Called with the progress.

    Returns:
        The accuracy; None if ``data`` has no labels or no test split.

    Raises:
        ConfigError: The GPU has too little memory.
        DataError: Images or labels cannot be read.
    """
    return Judge(data, limit, told).accuracies(student, ["lbfgs"])["lbfgs"]


def probe_prior(
    prior: Prior, data: DataConfig, limit: int | None = None, told: Told = nobody
) -> float | None:
    """Return the accuracy of a prior's features by the linear probe, see :func:`probe_student`."""
    splits = open_splits(data, limit)
    if len(splits) < 2:
        return None
    encoded, done, total = list[Labeled](), 0, sum(len(split.ids) for split in splits)
    with enough_memory("encode the images", FEWER):
        for split in splits:
            found = list[Encoded]()
            for part in _features(prior, split, data.on_error):
                found.append(part)
                done += len(part.ids) + len(part.skipped)
                told(done, total)
            features = torch.from_numpy(np.concatenate([one.values for one in found]))
            rows = np.searchsorted(split.ids, np.concatenate([one.ids for one in found]))
            encoded.append(split.labeled(features.to(prior.device), rows))
    told(total, total, FITTING)
    return _accuracy(encoded)


def _features(prior: Prior, split: Split, on_error: str) -> Iterator[Encoded]:
    """Yield the prior's features of the split, some images at a time."""
    some = np.split(split.ids, range(SHOWN_ROWS, len(split.ids), SHOWN_ROWS))
    size = BATCH[prior.device.type]
    return represent_blocks(
        prior, split.source, some, batch_size=size, precision="float32", on_error=on_error
    )


def random_student(student: StudentConfig, data: DataConfig, seed: int) -> LoadedStudent:
    """Return the random student with which a training on ``data`` with ``seed`` starts.

    Only the images that its normalisation is computed from are read.

    Raises:
        ConfigError: The student cannot be built.
        DataError: An image cannot be read.
    """
    source = open_source(data)
    size = student.image_size or own_size(source)
    squares = Squares(source, measured_ids(source.ids), size, pick_device(), data.on_error)
    model = initial_student(replace(student, init=None), size, seed)
    return LoadedStudent(model, measure(squares, squares.rows), {})


@dataclass(frozen=True)
class Judged:
    """The quality of a student's features.

    Attributes:
        accuracy: Accuracy of the probe in [0, 1]; None without labels.
        spread: See :func:`spread`.
    """

    accuracy: float | None
    spread: float | None


class Judge:
    """Probes any number of students; the images are read once for each image size.

    Args:
        data: Where the images and labels are.
        limit: Most rows of each split, always the same seeded choice; None for all.
        told: Called with the progress of each probe.
    """

    def __init__(self, data: DataConfig, limit: int | None = None, told: Told = nobody) -> None:
        self.limit, self._data, self._told = limit, data, told
        self._read: dict[int, list[Squares]] = {}

    def __call__(self, student: LoadedStudent) -> Judged:
        """Return the probe's accuracy, and the spread of the features of the last split.

        Raises:
            ConfigError: The GPU has too little memory.
            DataError: Images or labels cannot be read.
        """
        found = self.encode(student)
        return Judged(_accuracy(found) if len(found) == 2 else None, spread(found[-1][0]))

    def accuracies(
        self, student: LoadedStudent, methods: Iterable[str] = METHODS
    ) -> dict[str, float | None]:
        """Return the accuracy by each method; without labels None, without computing features."""
        if not self.labeled:
            return dict.fromkeys(methods)
        found = self.encode(student)
        return {method: _accuracy(found, method) for method in methods}

    @cached_property
    def _splits(self) -> list[Split]:
        return open_splits(self._data, self.limit)

    @property
    def labeled(self) -> bool:
        """Whether both splits have labels."""
        return len(self._splits) == 2

    def marked(self, size: int) -> list[tuple[Squares, Tensor]]:
        """Return each split's images as squares of ``size`` pixels, and their labels by row.

        Both splits must have labels.
        """
        pairs = zip(self._squares(size), self._splits, strict=True)
        return [(squares, torch.from_numpy(split.labels)) for squares, split in pairs]

    def class_names(self) -> dict[int, str]:
        """Return the source's class names by class number; both splits must have labels."""
        train = self._splits[0]
        assert train.labels is not None
        return class_names(self._data, train.source, train.ids, train.labels)

    def _squares(self, size: int) -> list[Squares]:
        if size not in self._read:
            self._read[size] = [
                Squares(split.source, split.ids, size, pick_device(), self._data.on_error)
                for split in self._splits
            ]
        return self._read[size]

    def encode(self, student: LoadedStudent) -> list[Labeled]:
        """Return features and labels of each split's readable images, by ascending row.

        Features are computed from uint8 squares, which are normalised on the device.
        """
        device, model = pick_device(), student.model.to(pick_device())
        batch, encoded = BATCH[device.type], list[Labeled]()
        with enough_memory("encode the images", FEWER):
            read = self._squares(model.image_size)
            done, total = 0, sum(len(squares.rows) for squares in read)
            for split, squares in zip(self._splits, read, strict=True):
                parts = squares.batches(squares.rows, batch)
                stream = self._watched(parts, done, total)
                done += len(squares.rows)
                values = torch.empty(len(squares.rows), model.width, device=device)
                found = encode(student.features, stream, batch, values)
                features = torch.from_numpy(found.values).to(device)
                encoded.append(split.labeled(features, found.ids))
        self._told(total, total, FITTING)
        return encoded

    def _watched(
        self, parts: Iterable[tuple[Tensor, Tensor]], done: int, total: int
    ) -> Iterator[Read]:
        """Yield batches for :func:`encode`, and report how many images it has consumed."""
        for images, rows in parts:
            yield rows, images, ()
            done += len(rows)
            self._told(done, total)


@dataclass(frozen=True)
class Split:
    """The images of one split that the probe uses.

    Attributes:
        source: The source of the split.
        ids: int64 (R,), ascending.
        labels: int64 (R,); None unless both splits have labels.
    """

    source: Source
    ids: NDArray[np.int64]
    labels: NDArray[np.int64] | None

    def labeled(self, features: Tensor, rows: NDArray[np.int64]) -> Labeled:
        """Return features (B, m) with the labels of ``rows`` (B,), indices of readable ``ids``.

        Raises:
            DataError: ``rows`` is empty.
        """
        if not len(rows):
            raise DataError(
                f"{self.source.name} has no readable image to probe with; see data.root"
            )
        if self.labels is None:
            return features, None
        return features, torch.from_numpy(self.labels[rows]).to(features.device)


@read_once()
def open_splits(data: DataConfig, limit: int | None) -> list[Split]:
    """Return the train and test splits, or only the train split unless both have labels.

    If both have labels, unlabeled rows are left out. At most ``limit`` rows of each split are
    taken, always the same seeded choice.
    """
    train = split_labels(data, "train")
    test = None if train is None else split_labels(data, "test")
    known = {"train": None} if test is None else {"train": train, "test": test}
    splits = []
    for name, labels in known.items():
        source = open_source(data, name)
        if labels is not None and len(labels) != len(source):
            raise DataError(
                f"{source.name} has {len(source)} {name} images, but {len(labels)} labels"
            )
        rows = np.arange(len(source)) if labels is None else np.flatnonzero(labels >= 0)
        if limit is not None and limit < len(rows):
            draws = np.random.default_rng(derive_seed(0, "probe"))
            rows = np.sort(draws.choice(rows, limit, replace=False))
        splits.append(Split(source, source.ids[rows], None if labels is None else labels[rows]))
    return splits


def _accuracy(encoded: Sequence[Labeled], method: str = "lbfgs") -> float:
    """Fit a classifier on the first split and return its accuracy on the second."""
    (train_x, train_y), (test_x, test_y) = encoded
    assert train_y is not None and test_y is not None
    with enough_memory("fit the probe", FEWER):
        return fit_probe(train_x, train_y, test_x, test_y, method)


def spread(features: Tensor) -> float:
    """Return how far features (N, m) are from collapse: 0 if all point in the same direction.

    This is the standard deviation of the L2-normalised features, averaged over the columns and
    multiplied by sqrt(m) (Chen and He 2021, section 4.1); 1 for an isotropic distribution.
    """
    unit = F.normalize(features.double())
    return float(unit.std(0).mean() * unit.shape[1] ** 0.5)
