"""The learning curve of a training, and how two trainings are compared."""

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
        spread: Spread of the features, see :func:`coopt_fl.students.probe.spread`; None likewise.
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
    """Return how many times faster a training is than a baseline, in both senses.

    Args:
        curve: Of the training.
        baseline: Of the baseline.
        preparation: Seconds before the training began, such as making the targets; they count.
        baseline_preparation: Likewise of the baseline.

    Returns:
        ``equal_epochs``: the baseline's seconds over ours until the end of the last epoch that
        both have; ``to_accuracy``: the baseline's seconds over ours until the probe first reaches
        the baseline's final accuracy, None where ours never does.
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
    """Return mean, sample standard deviation (0 of one value) and number of those not None.

    None if there are none.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    std = statistics.stdev(known) if len(known) > 1 else 0.0
    return {"mean": statistics.fmean(known), "std": std, "n": len(known)}
