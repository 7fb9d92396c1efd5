"""``coopt evaluate``: how well a student classifies, by several classifiers.

Linear probe, nearest neighbours, few labels, fine-tuning: each is fitted on the train split and
judged on the test split, and no setting is chosen by the test split.
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
"""Settings of the nearest-neighbour classifier. The temperature is that of Wu et al. 2018,
section 3.4."""

FEW = (1, 10, 100)
"""Numbers of labels per class."""

DRAWS = 5
"""Random choices of the few labels; accuracies are averaged over them."""


@dataclass(frozen=True)
class OfClass:
    """Accuracy of the linear probe on one class.

    Attributes:
        label: The number of the class.
        name: Its name in the source; "" if it has none.
        train: Number of its rows in the train split.
        test: Number of its rows in the test split.
        accuracy: Share of these test rows that the probe classifies correctly; None without any.
    """

    label: int
    name: str
    train: int
    test: int
    accuracy: float | None


@dataclass(frozen=True)
class FewLabels:
    """Accuracy of the linear probe with few labels.

    Attributes:
        per_class: Most labels used of each class; a class may have fewer.
        labels: Number of labels used in all.
        accuracy: Mean over the draws.
        std: Sample standard deviation over the draws; 0 for a single draw.
        draws: Number of draws: 1 if all labels are used.
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
        train: Number of rows of the train split.
        test: Number of rows of the test split.
        linear: Accuracy of the linear probe.
        knn: Accuracy of a weighted vote of the 20 nearest neighbours by cosine similarity.
        fine_tuned: Accuracy after fine-tuning; None without fine-tuning.
        epochs: Epochs of fine-tuning.
        classes: The linear probe's accuracy on each class.
        confusion: Counts of test rows by true class (row) and predicted class (column), in the
            order of ``classes``.
        few: The linear probe with 1, 10 and 100 labels per class.
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
        student: The student; its own weights are not changed.
        data: Labeled images with a train and a test split.
        epochs: Epochs of fine-tuning; 0 leaves it out.
        progress: Shows each step.

    Raises:
        ConfigError: The GPU has too little memory.
        DataError: Images or labels cannot be read, or a split has no labels.
    """
    from sklearn.metrics import confusion_matrix  # takes a second

    judge = Judge(data, told=lambda done, of, _="": progress.show("features", done, of, "image"))
    with read_once():
        tell_doubts(data, progress)
        labeled = judge.labeled
    if not labeled:
        raise DataError(
            f"data.source={data.source} has no labels in both of its splits, train and test, so "
            "no student can be judged by it; name labeled images by data.source and data.root"
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
            tuned = fine_tuned(student, probe, train, test, epochs, _shown(progress, epochs))
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
    """Return the accuracy of 20 nearest neighbours by cosine similarity (Wu et al. 2018).

    A neighbour's vote weighs ``exp(cosine / 0.07)``.

    Args:
        train_x: Features (N, m).
        train_y: Labels (N,).
        test_x: Features (T, m).
        test_y: Labels (T,).
    """
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
    """Return the accuracy of the linear probe with ``number`` labels per class."""
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
    """Return the row counts and the probe's accuracy of each class."""
    found = []
    for label, answers, right in zip(labels, confusion, confusion.diagonal(), strict=True):
        tested = int(answers.sum())
        accuracy = float(right / tested) if tested else None
        name, trained = names.get(int(label), ""), int((known == label).sum())
        found.append(OfClass(int(label), name, trained, tested, accuracy))
    return found


def _shown(progress: Progress, epochs: int) -> Callable[[int, float], None]:
    """Return a callback that shows the number of epochs done and the mean loss."""
    progress.show("fine-tuning", 0, epochs, "epoch")
    return lambda done, loss: progress.show(
        "fine-tuning", done, epochs, "epoch", f"loss {loss:.4f}"
    )
