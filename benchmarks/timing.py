"""Paired timing: what is measured and its roofline take turns, so that noise hits both alike."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def paired(work: Callable[[], Any], roofline: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Return seconds of both, and the ratio roofline / work of each pair: 1 is the best there is.

    Both run once before, to warm up.
    """
    work()
    roofline()
    pairs = [(_seconds(work), _seconds(roofline)) for _ in range(repeats)]
    return {
        "seconds": spread([pair[0] for pair in pairs]),
        "roofline_seconds": spread([pair[1] for pair in pairs]),
        "ratio": spread([pair[1] / pair[0] for pair in pairs]),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {
        "min": round(min(values), 5),
        "median": round(statistics.median(values), 5),
        "max": round(max(values), 5),
    }


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
