"""``coopt evaluate``: what a student's features are worth for classification, in several ways.

Each way is fitted on the train split and judged on the test split; nothing is chosen by the latter.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.once import read_once
from coopt_fl.core.progress import Progress
from coopt_fl.core.seeding import derive_seed
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.classifier import fit_linear, fit_probe
from coopt_fl.students.doubts import tell_doubts
from coopt_fl.students.finetune import fine_tuned
from coopt_fl.students.probe import FEWER, Judge
from coopt_fl.students.session import enough_memory

NEIGHBOURS, TEMPERATURE = 20, 0.07
"""Of the nearest-neighbour classifier, as usual for features (Wu et al. 2018, section 3.4)."""

FEW = (1, 10, 100)
"""Labels a class."""

DRAWS = 5
"""Choices of the few labels, over which accuracies are averaged."""


@dataclass(frozen=True)
class OfClass:
    """How a class is recognised by the linear probe.

    Attributes:
        label: The number of the class.
        name: What the source calls it; "" where it does not.
        train: Rows of the train split.
        test: Rows of the test split.
        accuracy: Share of the latter that the probe recognises; None where there are none.
    """

    label: int
    name: str
    train: int
    test: int
    accuracy: float | None


@dataclass(frozen=True)
class FewLabels:
    """The linear probe with few labels.

    Attributes:
        per_class: Labels of each class, or as many as it has.
        labels: In all.
        accuracy: Mean over the draws.
        std: Standard deviation over the draws; 0 of one, which is made where all labels are used.
        draws: Their number.
    """

    per_class: int
    labels: int
    accuracy: float
    std: float
    draws: int


@dataclass(frozen=True)
class Evaluation:
    """Accuracies in [0, 1] on the test split.

    Attributes:
        train: Rows of the train split.
        test: Rows of the test split.
        linear: Of the linear probe.
        knn: Of the weighted 20 nearest neighbours by cosine similarity.
        fine_tuned: Of the student, trained with labels; None if that was not asked for.
        epochs: Of that training.
        classes: One by one.
        confusion: Rows of the test split by class (row) and the probe's answer (column), in the
            order of ``classes``.
        few: The linear probe with 1, 10 and 100 labels a class.
    """

    train: int
    test: int
    linear: float
    knn: float
    fine_tuned: float | None
    epochs: int
    classes: list[OfClass]
    confusion: list[list[int]]
    few: list[FewLabels]


def evaluate_student(
    student: LoadedStudent, data: DataConfig, epochs: int, progress: Progress
) -> Evaluation:
    """Judge ``student`` on labeled images.

    Args:
        student: Its own weights stay as they are.
        data: Labeled images with a train and a test split.
        epochs: Of the fine-tuning; 0 leaves it out.
        progress: Told of each step.

    Raises:
        ConfigError: The GPU has too little memory.
        DataError: Images or labels cannot be read, or there are none.
    """
    from sklearn.metrics import confusion_matrix  # takes a second

    judge = Judge(data, told=lambda done, of, _="": progress.show("features", done, of, "image"))
    with read_once():
        tell_doubts(data, progress)
        labeled = judge.labeled
    if not labeled:
        raise DataError(
            f"data.source={data.source} has no labels in both of its splits, so nothing can be "
            "judged there; name labeled images by data.source and data.root"
        )
    names = judge.class_names()
    with progress.phase("features"):
        splits = judge.encode(student)
    (train_x, train_y), (test_x, test_y) = splits
    assert train_y is not None and test_y is not None
    with progress.phase("classifiers"), enough_memory("fit the classifiers", FEWER):
        probe = fit_linear(train_x, train_y)
        predicted = probe.predict(test_x).cpu().numpy()
        truth, known = test_y.cpu().numpy(), train_y.cpu().numpy()
        labels = np.unique(np.concatenate([known, truth]))
        confusion = confusion_matrix(truth, predicted, labels=labels)
        knn = nearest_neighbours(train_x, known, test_x, truth)
        few = [few_labels(train_x, train_y, test_x, test_y, number) for number in FEW]
    tuned = None
    if epochs:
        with progress.phase("fine-tuning"):
            train, test = judge.marked(student.model.image_size)
            tuned = fine_tuned(student, probe, train, test, epochs, _told(progress, epochs))
    return Evaluation(
        train=len(known),
        test=len(truth),
        linear=float((predicted == truth).mean()),
        knn=knn,
        fine_tuned=tuned,
        epochs=epochs,
        classes=_classes(labels, names, known, confusion),
        confusion=confusion.tolist(),
        few=few,
    )


def nearest_neighbours(
    train_x: Tensor, train_y: NDArray[np.int64], test_x: Tensor, test_y: NDArray[np.int64]
) -> float:
    """Return the accuracy of the nearest train rows' votes, each of ``exp(cosine / 0.07)``."""
    from sklearn.neighbors import KNeighborsClassifier

    def votes(distances: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp((1 - distances) / TEMPERATURE)

    neighbours = min(NEIGHBOURS, len(train_y))
    classifier = KNeighborsClassifier(neighbours, weights=votes, metric="cosine")
    classifier.fit(train_x.cpu().numpy(), train_y)
    return float(classifier.score(test_x.cpu().numpy(), test_y))


def few_labels(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, number: int
) -> FewLabels:
    """Return the accuracy of the linear probe with ``number`` labels of each class."""
    known = train_y.cpu().numpy()
    rows = [np.flatnonzero(known == label) for label in np.unique(known)]
    draws = DRAWS if max(map(len, rows)) > number else 1
    accuracies = []
    for draw in range(draws):
        chance = np.random.default_rng(derive_seed(0, "few labels", number, draw))
        chosen = np.concatenate([chance.permutation(some)[:number] for some in rows])
        taken = torch.from_numpy(np.sort(chosen)).to(train_x.device)
        accuracies.append(fit_probe(train_x[taken], train_y[taken], test_x, test_y))
    mean, std = float(np.mean(accuracies)), float(np.std(accuracies, ddof=min(1, draws - 1)))
    return FewLabels(number, len(chosen), mean, std, draws)


def _classes(
    labels: NDArray[np.int64],
    names: dict[int, str],
    known: NDArray[np.int64],
    confusion: NDArray[np.int64],
) -> list[OfClass]:
    """Return the rows and the accuracy of each class."""
    found = []
    for label, answers, right in zip(labels, confusion, confusion.diagonal(), strict=True):
        tested = int(answers.sum())
        accuracy = float(right / tested) if tested else None
        name, trained = names.get(int(label), ""), int((known == label).sum())
        found.append(OfClass(int(label), name, trained, tested, accuracy))
    return found


def _told(progress: Progress, epochs: int) -> Callable[[int, float], None]:
    """Return what is called with the number of epochs done and the loss."""
    progress.show("fine-tuning", 0, epochs, "epoch")
    return lambda done, loss: progress.show(
        "fine-tuning", done, epochs, "epoch", f"loss {loss:.4f}"
    )
