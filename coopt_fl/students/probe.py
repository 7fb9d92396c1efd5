"""The probe: a linear classifier on frozen features, the only user of labels.

Priors and students become features by :func:`coopt_fl.targets.optimize.encode`, a student always
from the squares that it is trained on: its score is the same whoever asks and on any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from coopt_fl.config.schema import DataConfig, StudentConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.runtime import pick_device
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import Source, open_source, split_labels
from coopt_fl.students.checkpoint import LoadedStudent, load_student
from coopt_fl.students.images import (
    Squares,
    StreamedSquares,
    measure,
    measured_ids,
    open_squares,
    own_size,
)
from coopt_fl.students.linear import fit_linear
from coopt_fl.students.loop import initial_student
from coopt_fl.students.session import enough_memory
from coopt_fl.targets.optimize import encode, represent

if TYPE_CHECKING:
    from coopt_fl.priors.prior import Prior

BATCH = {"cuda": 256, "cpu": 32}
"""Images in one call of a model; a CPU is fastest while they fit into its cache."""

METHODS = ("lbfgs", "adamw")
"""The classifiers, see :func:`coopt_fl.students.linear.fit_linear`."""

FEWER = "end what else uses it, set a lower data.limit, or set CUDA_VISIBLE_DEVICES= for the CPU"

Encoded = tuple[Tensor, Tensor | None]
"""Features (R, m) of a split, and its labels int64 (R,) if both splits have some."""


def probe_student(
    checkpoint: Path, data: DataConfig | None = None, limit: int | None = None
) -> float | None:
    """Return the accuracy in [0, 1] of the student in ``checkpoint``.

    Args:
        checkpoint: The file.
        data: Labeled images: a classifier is fitted on the train split and judged on the test
            split. Those that the student was trained on unless given.
        limit: Most rows of each split, always the same seeded choice; None for all.

    Returns:
        None where ``data`` has no labels or no test split.

    Raises:
        ConfigError: ``checkpoint`` is not one, or the GPU has too little memory.
        DataError: Images or labels cannot be read.
    """
    student = load_student(checkpoint)
    return Judge(data or DataConfig(**student.meta["data"]), limit).accuracies(student)["lbfgs"]


def probe_methods(student: LoadedStudent, data: DataConfig) -> dict[str, float | None]:
    """Return a student's accuracy by each of ``METHODS``, see :func:`probe_student`.

    The images are encoded only once.
    """
    return Judge(data).accuracies(student, METHODS)


def probe_random(
    student: StudentConfig, data: DataConfig, seed: int, limit: int | None = None
) -> float | None:
    """Return the accuracy of the student that a training with ``seed`` would start from.

    Raises:
        ConfigError: The student cannot be built, or the GPU has too little memory.
        DataError: Images or labels cannot be read.
    """
    return Judge(data, limit).accuracies(random_student(student, data, seed))["lbfgs"]


def probe_prior(prior: Prior, data: DataConfig, limit: int | None = None) -> float | None:
    """Return the accuracy of a prior's own features, see :func:`probe_student`."""
    splits = _open_splits(data, limit)
    if len(splits) < 2:
        return None
    with enough_memory("encode the images", FEWER):
        return _accuracy([_encoded_by_prior(prior, split, data.on_error) for split in splits])


def random_student(student: StudentConfig, data: DataConfig, seed: int) -> LoadedStudent:
    """Return the student that a training on ``data`` with ``seed`` would start from.

    Only the images that its normalisation is measured on are read.
    """
    source = open_source(data)
    size = student.image_size or own_size(source)
    ids = measured_ids(source.ids)
    squares = StreamedSquares(source, ids, size, pick_device(), data.on_error)
    model = initial_student(student, size, seed)
    return LoadedStudent.of(model, measure(squares, squares.rows), {})


@dataclass(frozen=True)
class Judged:
    """What a student's features are worth: accuracy in [0, 1] or None, and :func:`spread`."""

    accuracy: float | None
    spread: float | None


class Judge:
    """Probes students, again and again; the images are read once for each size of students.

    Args:
        data: Where the images and labels are.
        limit: Most rows of each split, always the same seeded choice; None for all.
    """

    def __init__(self, data: DataConfig, limit: int | None = None) -> None:
        self.limit, self._data = limit, data
        self._read: dict[int, list[Squares]] = {}

    def __call__(self, student: LoadedStudent) -> Judged:
        """Return the probe's accuracy, and the spread of the features of the last split.

        Raises:
            ConfigError: The GPU has too little memory.
            DataError: Images or labels cannot be read.
        """
        found = self._encode(student)
        accuracy = _accuracy(found) if len(found) == 2 else None
        return Judged(accuracy, spread(found[-1][0]))

    def accuracies(
        self, student: LoadedStudent, methods: Sequence[str] = ("lbfgs",)
    ) -> dict[str, float | None]:
        """Return the accuracy by each method; None, and nothing is encoded, without labels."""
        if len(self._splits) < 2:
            return dict.fromkeys(methods)
        found = self._encode(student)
        return {method: _accuracy(found, method) for method in methods}

    @cached_property
    def _splits(self) -> list[Split]:
        return _open_splits(self._data, self.limit)

    def _encode(self, student: LoadedStudent) -> list[Encoded]:
        device, size = pick_device(), student.image_size
        student.model.to(device)
        with enough_memory("encode the images", FEWER):
            if size not in self._read:
                self._read[size] = [
                    open_squares(split.source, split.ids, size, device, self._data.on_error)
                    for split in self._splits
                ]
            pairs = zip(self._splits, self._read[size], strict=True)
            return [_encoded_by_student(student, split, squares) for split, squares in pairs]


@dataclass(frozen=True)
class Split:
    """Images ``ids`` (R,), ascending, to probe with; labels int64 (R,) if both splits have some."""

    source: Source
    ids: NDArray[np.int64]
    labels: NDArray[np.int64] | None

    def encoded(self, features: Tensor, rows: NDArray[np.int64]) -> Encoded:
        """Return features (B, m) with the labels of ``rows`` (B,), the readable ones of ``ids``.

        Raises:
            DataError: There are none.
        """
        if not len(rows):
            raise DataError(
                f"{self.source.name} has no readable image to probe with; see data.root"
            )
        known = None if self.labels is None else torch.from_numpy(self.labels[rows])
        return features, None if known is None else known.to(features.device)


def _open_splits(data: DataConfig, limit: int | None) -> list[Split]:
    """Return the train and the test split, or the train split alone where one has no labels."""
    train = split_labels(data, "train")
    test = None if train is None else split_labels(data, "test")
    known = {"train": None} if test is None else {"train": train, "test": test}
    splits = []
    for name, labels in known.items():
        source = open_source(data, name)
        rows = _chosen_rows(len(source), limit)
        splits.append(Split(source, source.ids[rows], None if labels is None else labels[rows]))
    return splits


def _chosen_rows(rows: int, limit: int | None) -> NDArray[np.int64]:
    """Return at most ``limit`` of so many rows, ascending, always the same seeded choice."""
    if limit is None or rows <= limit:
        return np.arange(rows)
    chosen = np.random.default_rng(derive_seed(0, "probe")).choice(rows, limit, replace=False)
    return np.sort(chosen)


def _encoded_by_student(student: LoadedStudent, split: Split, squares: Squares) -> Encoded:
    """Return the student's features of uint8 squares, which are normalised on the device."""
    device = pick_device()
    size = BATCH[device.type]
    batches = squares.batches(squares.rows, size)
    stream = ((rows.cpu().numpy(), images, ()) for images, rows in batches)
    values = torch.empty(len(squares.rows), student.width, device=device)
    found = encode(student.features, stream, size, values)
    return split.encoded(found.values.to(device), found.ids)


def _encoded_by_prior(prior: Prior, split: Split, on_error: str) -> Encoded:
    """Return the prior's features, as a participant computes them."""
    size = BATCH[prior.device.type]
    found = represent(
        prior, split.source, split.ids, batch_size=size, precision="float32", on_error=on_error
    )
    values = torch.from_numpy(found.values).to(prior.device)
    return split.encoded(values, np.searchsorted(split.ids, found.ids))


def _accuracy(encoded: Sequence[Encoded], method: str = "lbfgs") -> float:
    """Return the accuracy on the second split of a classifier fitted on the first one."""
    (train_x, train_y), (test_x, test_y) = encoded
    assert train_y is not None and test_y is not None
    with enough_memory("fit the probe", FEWER):
        return fit_probe(train_x, train_y, test_x, test_y, method)


def fit_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    method: str = "lbfgs",
    seed: int = 0,
) -> float:
    """Return the accuracy in [0, 1], on the test rows, of a classifier fitted on the train rows.

    Args:
        train_x: (N, m); standardised inside.
        train_y: int64 (N,).
        test_x: (T, m).
        test_y: int64 (T,); a class that ``train_y`` lacks counts as wrong.
        method: See :func:`coopt_fl.students.linear.fit_linear`.
        seed: Decides the batches of ``adamw``.
    """
    predicted = fit_linear(train_x, train_y, method, seed).predict(test_x)
    return float((predicted == test_y.to(predicted.device)).double().mean())


def spread(features: Tensor) -> float:
    """Return how far features (N, m) are from collapse: 0 where all point the same way.

    The mean over the columns of the standard deviation of the L2-normalised features, times the
    root of m (Chen and He 2021, section 4.1): 1 for an isotropic distribution.
    """
    unit = F.normalize(features.double())
    return float(unit.std(0).mean() * unit.shape[1] ** 0.5)
