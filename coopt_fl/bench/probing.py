"""The probe's classifier against scikit-learn's: CPU seconds on the same features."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.bench.measure import Case, Reach, Row, Seconds, in_turn, not_here, spread
from coopt_fl.students.classifier import LinearClassifier, fit_linear

REPEATS = 5
ROWS = (1437, 10_000)
"""Number of train rows: of the digits, and of CIFAR-10 with the README's probe.limit."""

WIDTH, CLASSES, DIRECTIONS = 1280, 10, 60
TEST_ROWS = 2000


def probe() -> Iterator[Row]:
    """Yield a row for each number of samples."""
    for rows in ROWS:
        case = Case(
            f"probe/{rows}",
            f"fitting the probe on {rows} x {WIDTH} features, CPU seconds",
            "scikit-learn's StandardScaler and LogisticRegression(max_iter=1000)",
            Reach(2.0, at_least=False),
        )
        yield _row(case, rows)


def _row(case: Case, rows: int) -> Row:
    if reason := not_here("cpu"):
        return case.skipped(reason)
    features, labels = planted(rows + TEST_ROWS)
    train_x, test_x = torch.from_numpy(features).split([rows, TEST_ROWS])
    train_y, test_y = torch.from_numpy(labels).split([rows, TEST_ROWS])
    fitted: dict[str, Any] = {}
    ours, theirs = in_turn(
        _cpu_seconds(lambda: fitted.update(ours=fit_linear(train_x, train_y))),
        _cpu_seconds(lambda: fitted.update(theirs=_theirs(train_x, train_y))),
        REPEATS,
    )
    found = fitted["ours"].predict(test_x)
    known = torch.from_numpy(fitted["theirs"].predict(test_x.numpy()))
    return case.measured(
        spread(ours / theirs),
        cpu_s=spread(ours),
        scikit_learn_cpu_s=spread(theirs),
        accuracy=_share(found == test_y),
        scikit_learn_accuracy=_share(known == test_y),
        same_answers=_share(found == known),
        gradient=fitted["ours"].steepness(train_x, train_y),
        scikit_learn_gradient=_as_ours(fitted["theirs"]).steepness(train_x, train_y),
    )


def planted(rows: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return non-negative features (R, 1280), like a network's after a ReLU, and labels (R,).

    Features have a signal in 60 directions and noise in all; the ten labels follow from the signal,
    with noise.
    """
    generator = np.random.default_rng(0)
    inner = generator.normal(size=(rows, DIRECTIONS))
    outer = generator.normal(size=(DIRECTIONS, WIDTH)) / DIRECTIONS**0.5
    noisy = inner @ outer + 0.5 * generator.normal(size=(rows, WIDTH))
    scores = inner @ generator.normal(size=(DIRECTIONS, CLASSES))
    scores += 4 * generator.normal(size=scores.shape)
    return np.maximum(noisy, 0).astype(np.float32), scores.argmax(1)


def _theirs(features: Tensor, labels: Tensor) -> Any:
    """Return scikit-learn's fitted pipeline."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return pipeline.fit(features.numpy(), labels.numpy())


def _as_ours(pipeline: Any) -> LinearClassifier:
    """Convert scikit-learn's fitted pipeline into our classifier."""
    scaler, known = pipeline[0], pipeline[1]
    parts = known.coef_, known.intercept_, scaler.mean_, scaler.scale_, known.classes_
    return LinearClassifier(*map(torch.from_numpy, parts))


def _share(right: Tensor) -> float:
    return round(float(right.double().mean()), 4)


def _cpu_seconds(work: Callable[[], object]) -> Seconds:
    """Return a function that measures the CPU time of ``work`` over all threads."""

    def seconds() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return seconds
