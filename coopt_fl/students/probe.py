"""The probe: a linear classifier on frozen features, the only user of labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.config.schema import DataConfig, StudentConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.runtime import pick_device
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import Source, batches, open_source, split_labels
from coopt_fl.students.checkpoint import LoadedStudent, load_student
from coopt_fl.students.images import StreamedSquares, measure, measured_ids, own_size
from coopt_fl.students.linear import fit_linear
from coopt_fl.students.loop import initial_student
from coopt_fl.students.session import enough_memory

if TYPE_CHECKING:
    from coopt_fl.priors.prior import Prior
from torch.nn import functional as F

from coopt_fl.students.images import Squares, open_squares

Encode = Callable[[Tensor | list[Tensor]], Tensor]
"""uint8 images (B, 3, H, W), or a list where they differ in size, to features (B, m)."""

BATCH = {"cuda": 256, "cpu": 32}
"""Images in one call of a model; a CPU is fastest while they fit into its cache."""

METHODS = ("lbfgs", "adamw")
"""The classifiers, see :func:`coopt_fl.students.linear.fit_linear`."""

FEWER = "end what else uses it, set a lower data.limit, or set CUDA_VISIBLE_DEVICES= for the CPU"


@dataclass(frozen=True)
class Encoded:
    """Frozen features (R, m) and labels (R,) of both splits, to fit any number of probes on."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def accuracy(self, method: str = "lbfgs") -> float:
        """Return the accuracy in [0, 1] on the test split.

        Raises:
            ConfigError: The GPU has too little memory.
        """
        with enough_memory("fit the probe", FEWER):
            return fit_probe(*self.train, *self.test, method)


def fit_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    method: str = "lbfgs",
    seed: int = 0,
) -> float:
    """Return the accuracy in [0, 1] on the test features of a classifier fitted on the others.

    Args:
        train_x: (N, m); standardised inside.
        train_y: int64 (N,).
        test_x: (T, m).
        test_y: int64 (T,); a class that ``train_y`` lacks counts as wrong.
        method: See :func:`coopt_fl.students.linear.fit_linear`.
        seed: Likewise.
    """
    predicted = fit_linear(train_x, train_y, method, seed).predict(test_x)
    return float((predicted == test_y.to(predicted.device)).double().mean())


def probe_features(
    encode: Encode,
    data: DataConfig,
    *,
    limit: int | None = None,
    method: str = "lbfgs",
) -> float | None:
    """Return the probe's accuracy on the features that ``encode`` gives for ``data``.

    Args:
        encode: A frozen model in eval mode.
        data: Where images and labels are; trained on its train split, judged on its test split.
        limit: Most rows of each split, a seeded choice; None for all.
        method: ``lbfgs`` or ``adamw``.

    Returns:
        None where ``data`` has no labels or no test split.

    Raises:
        ConfigError: The GPU has too little memory.
        DataError: Images or labels cannot be read.
    """
    encoded = _encode(encode, data, limit)
    return encoded.accuracy(method) if encoded else None


def probe_student(
    checkpoint: Path,
    data: DataConfig | None = None,
    method: str = "lbfgs",
    limit: int | None = None,
) -> float | None:
    """Return the probe's accuracy of a student, on the data it was trained on unless given.

    Raises:
        ConfigError: ``checkpoint`` is not one.
        DataError: The images cannot be read.
    """
    student = load_student(checkpoint)
    own = DataConfig(**student.meta["data"])
    return probe_methods(student, data or own, (method,), limit)[method]


def probe_methods(
    student: LoadedStudent,
    data: DataConfig,
    methods: Sequence[str] = METHODS,
    limit: int | None = None,
) -> dict[str, float | None]:
    """Return a student's accuracy by each of the methods; the images are encoded only once.

    Raises:
        ConfigError: The GPU has too little memory.
        DataError: The images cannot be read.
    """
    student.model.to(pick_device())
    encoded = _encode(student.features, data, limit)
    return {method: encoded.accuracy(method) if encoded else None for method in methods}


def probe_random(
    student: StudentConfig,
    data: DataConfig,
    seed: int,
    method: str = "lbfgs",
    limit: int | None = None,
) -> float | None:
    """Return the probe's accuracy of the student as a training with ``seed`` would start it.

    Raises:
        ConfigError: The student cannot be built, or the GPU has too little memory.
        DataError: The images cannot be read.
    """
    untrained = random_student(student, data, seed)
    return probe_methods(untrained, data, (method,), limit)[method]


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


def probe_prior(
    prior: Prior, data: DataConfig, limit: int | None = None, method: str = "lbfgs"
) -> float | None:
    """Return the probe's accuracy of a prior's own features."""
    return probe_features(prior.features, data, limit=limit, method=method)


def _encode(encode: Encode, data: DataConfig, limit: int | None) -> Encoded | None:
    """Return features and labels of both splits, or None where there are no labels to fit."""
    parts = []
    for split in ("train", "test"):
        labels = split_labels(data, split)
        if labels is None:
            return None
        parts.append((open_source(data, split), labels))
    with enough_memory("encode the images", FEWER):
        train, test = (_encoded(encode, data, *part, limit) for part in parts)
    return Encoded(train, test)


def _encoded(
    encode: Encode,
    data: DataConfig,
    source: Source,
    labels: NDArray[np.int64],
    limit: int | None,
) -> tuple[Tensor, Tensor]:
    """Return features (R, m) and labels (R,) of at most ``limit`` rows."""
    rows, size = chosen_rows(len(source.ids), limit), BATCH[pick_device().type]
    features, found = [], []
    for batch in batches(source, [source.ids[rows]], size, on_error=data.on_error):
        if len(batch.ids):
            features.append(encode(batch.images))
            found.append(np.searchsorted(source.ids, batch.ids))
    if not features:
        raise DataError(f"{source.name} has no readable image to probe with; see data.root")
    x = torch.cat(features)
    return x, torch.from_numpy(labels[np.concatenate(found)]).to(x.device)


def chosen_rows(rows: int, limit: int | None) -> NDArray[np.int64]:
    """Return at most ``limit`` of so many rows: a seeded choice, ascending."""
    if limit is None or rows <= limit:
        return np.arange(rows)
    chosen = np.random.default_rng(derive_seed(0, "probe")).choice(rows, limit, replace=False)
    return np.sort(chosen)


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
        found = [_encode_split(student, split) for split in self._splits[size]]
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


def _encode_split(student: LoadedStudent, split: Split) -> tuple[Tensor, Tensor | None]:
    """Return features (R, m) and labels (R,) of a split."""
    features, seen = [], []
    for images, rows in split.squares.batches(split.squares.rows, BATCH[pick_device().type]):
        features.append(student.features(images))
        seen.append(rows.cpu())
    x = torch.cat(features)
    return x, None if split.labels is None else split.labels[torch.cat(seen)].to(x.device)
