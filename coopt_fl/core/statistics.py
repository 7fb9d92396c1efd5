"""Mean and spread over seeds."""

import statistics
from collections.abc import Sequence


def mean_and_spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Return mean, sample standard deviation (0 of a single value) and number; None without any."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    std = statistics.stdev(known) if len(known) > 1 else 0.0
    return {"mean": statistics.fmean(known), "std": std, "n": len(known)}
