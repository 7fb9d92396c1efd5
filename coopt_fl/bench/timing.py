"""What is measured and its roofline take turns, so that noise hits both alike."""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from coopt_fl.bench.case import Spread

Seconds = Callable[[], float]
"""Does some work and returns how long what matters of it took."""


def timed(work: Callable[[], Any]) -> Seconds:
    """Return ``work`` as something that is timed as a whole, until the GPU is done, too."""

    def seconds() -> float:
        synchronise()
        started = time.perf_counter()
        work()
        synchronise()
        return time.perf_counter() - started

    return seconds


def synchronise() -> None:
    """Wait until the GPUs have nothing more to do."""
    for device in range(torch.cuda.device_count()):
        torch.cuda.synchronize(device)


def in_turn(work: Seconds, roofline: Seconds, repeats: int) -> list[tuple[float, float]]:
    """Return the seconds of both, ``repeats`` times; both run once before, to warm up."""
    work()
    roofline()
    return [(work(), roofline()) for _ in range(repeats)]


def spread(values: Iterable[float]) -> Spread:
    """Return minimum, median and maximum, to five digits."""
    known = sorted(values)
    kept = {"min": known[0], "median": statistics.median(known), "max": known[-1]}
    return {name: float(f"{value:.5g}") for name, value in kept.items()}
