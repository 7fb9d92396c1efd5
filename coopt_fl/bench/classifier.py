"""The probe's classifier against scikit-learn's, by the CPU seconds of the same features."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.bench.measure import Case, Reach, Row, Seconds, in_turn, not_here, spread
from coopt_fl.students.probe import fit_linear

REPEATS = 3
ROWS = (1437, 10_000)
"""Images of the digits' train split; of CIFAR-10 as the README probes it."""

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
    train, test = (features[:rows], labels[:rows]), (features[rows:], labels[rows:])
    found: dict[str, Predict] = {}
    ours, theirs = in_turn(
        _cpu_seconds(lambda: found.update(ours=_ours(*train))),
        _cpu_seconds(lambda: found.update(theirs=_theirs(*train))),
        REPEATS,
    )
    return case.measured(
        spread(ours / theirs),
        cpu_s=spread(ours),
        scikit_learn_cpu_s=spread(theirs),
        accuracy=_accuracy(found["ours"], *test),
        scikit_learn_accuracy=_accuracy(found["theirs"], *test),
        same_answers=float(np.mean(found["ours"](test[0]) == found["theirs"](test[0]))),
    )


Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Predict = Callable[[Features], Labels]


def planted(rows: int) -> tuple[Features, Labels]:
    """Return features (R, 1280) like a network's after its last ReLU, and labels (R,) of ten.

    They fill some directions and have noise in all; most labels follow from them.
    """
    generator = np.random.default_rng(0)
    inner = generator.normal(size=(rows, DIRECTIONS))
    outer = generator.normal(size=(DIRECTIONS, WIDTH)) / DIRECTIONS**0.5
    noisy = inner @ outer + 0.5 * generator.normal(size=(rows, WIDTH))
    scores = inner @ generator.normal(size=(DIRECTIONS, CLASSES))
    scores += 4 * generator.normal(size=scores.shape)
    return np.maximum(noisy, 0).astype(np.float32), scores.argmax(1)


def _ours(features: Features, labels: Labels) -> Predict:
    fitted = fit_linear(torch.from_numpy(features), torch.from_numpy(labels))

    def predict(some: Features) -> Labels:
        answer: Tensor = fitted.predict(torch.from_numpy(some))
        return answer.numpy()

    return predict


def _theirs(features: Features, labels: Labels) -> Predict:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    predict: Predict = known.fit(features, labels).predict
    return predict


def _accuracy(predict: Predict, features: Features, labels: Labels) -> float:
    return round(float(np.mean(predict(features) == labels)), 4)


def _cpu_seconds(work: Callable[[], object]) -> Seconds:
    """Return ``work`` timed by what all threads of this process compute."""

    def seconds() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return seconds
