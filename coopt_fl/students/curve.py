"""The learning curve of a training, and the speed-up of one training over another."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A student after an epoch.

    Attributes:
        epoch: Number of passes so far, from 1.
        samples: Number of samples seen so far, over all epochs.
        seconds: Time spent loading images and training so far, without probes and checkpoints.
        loss: Mean training loss of the epoch.
        accuracy: Accuracy of the probe in [0, 1]; None without labels, and in epochs not probed.
        spread: Spread of the features, see :func:`coopt_fl.students.probe.spread`; None in epochs
            not probed.
    """

    epoch: int
    samples: int
    seconds: float
    loss: float
    accuracy: float | None = None
    spread: float | None = None


def speed_up(
    curve: Sequence[Point],
    baseline: Sequence[Point],
    preparation: float = 0.0,
    baseline_preparation: float = 0.0,
) -> dict[str, float | None]:
    """Return how many times faster a training is than a baseline, by epochs and by accuracy.

    Args:
        curve: The learning curve of the training.
        baseline: The learning curve of the baseline.
        preparation: Seconds spent before the training, such as on the targets; added to its time.
        baseline_preparation: The same for the baseline.

    Returns:
        Ratios of the baseline's seconds to ours. ``equal_epochs``: until the end of the last epoch
        that both have; ``to_accuracy``: until the probe first reaches the baseline's final
        accuracy, None if ours never does.
    """
    last, final = min(curve[-1].epoch, baseline[-1].epoch), baseline[-1].accuracy

    def faster(done: Callable[[Point], bool]) -> float | None:
        ours = next((p.seconds + preparation for p in curve if done(p)), None)
        theirs = next((p.seconds + baseline_preparation for p in baseline if done(p)), None)
        return theirs / ours if theirs and ours else None

    def accurate(point: Point) -> bool:
        return final is not None and point.accuracy is not None and point.accuracy >= final

    return {
        "equal_epochs": faster(lambda point: point.epoch >= last),
        "to_accuracy": faster(accurate),
    }


def mean_and_spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Return the mean, sample standard deviation and number of the values that are not None.

    The standard deviation of a single value is 0. Return None if all values are None.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    std = statistics.stdev(known) if len(known) > 1 else 0.0
    return {"mean": statistics.fmean(known), "std": std, "n": len(known)}
