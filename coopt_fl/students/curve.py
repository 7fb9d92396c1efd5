"""What is written down of a training, and how two are compared."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A student after an epoch.

    Attributes:
        epoch: Passes so far, from 1.
        samples: Samples seen so far, over all epochs.
        seconds: Of loading the images and training so far; neither probes nor checkpoints.
        loss: Mean training loss of the epoch.
        accuracy: Of the probe; None where there are no labels, or it was not this epoch's turn.
        spread: Of the features, see :func:`coopt_fl.students.probe.spread`; None likewise.
    """

    epoch: int
    samples: int
    seconds: float
    loss: float
    accuracy: float | None = None
    spread: float | None = None


class Clock:
    """Seconds of what runs inside :meth:`running`, on top of those of earlier sessions."""

    def __init__(self, before: float) -> None:
        self.seconds = before

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time until the end of the block."""
        zero = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - zero


def seconds_to(curve: Sequence[Point], accuracy: float, preparation: float = 0.0) -> float | None:
    """Return the seconds until the probe first reaches ``accuracy``; None if it never does.

    Args:
        curve: Of one training.
        accuracy: In [0, 1].
        preparation: Seconds before training began, such as making the targets.
    """
    reached = (p for p in curve if p.accuracy is not None and p.accuracy >= accuracy)
    first = next(reached, None)
    return None if first is None else first.seconds + preparation


def speed_up(
    curve: Sequence[Point],
    baseline: Sequence[Point],
    preparation: float = 0.0,
    baseline_preparation: float = 0.0,
) -> dict[str, float | None]:
    """Return how many times faster a training is than a baseline, in both senses.

    Each is charged with the seconds before its training began.

    Returns:
        ``equal_epochs``: the baseline's seconds over ours until the end of the last epoch that
        both have; ``to_accuracy``: the baseline's seconds over ours until the probe first reaches
        the baseline's final accuracy, None where ours never does.
    """
    last = min(curve[-1].epoch, baseline[-1].epoch)
    ours = next(point.seconds for point in curve if point.epoch >= last) + preparation
    theirs = next(point.seconds for point in baseline if point.epoch >= last)
    theirs += baseline_preparation
    final, found = baseline[-1].accuracy, None
    if final is not None:
        reached = seconds_to(curve, final, preparation)
        until = seconds_to(baseline, final, baseline_preparation)
        found = until / reached if until and reached else None
    return {"equal_epochs": theirs / ours, "to_accuracy": found}


def mean_and_spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Return mean, sample standard deviation (0 of a single value) and number; None without any."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    std = statistics.stdev(known) if len(known) > 1 else 0.0
    return {"mean": statistics.fmean(known), "std": std, "n": len(known)}
