"""What is measured and its roofline take turns, so that noise hits both alike."""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl.bench.case import Spread

Seconds = Callable[[], float]
"""Does some work and returns how long the measured part of it took."""

Times = NDArray[np.float64]


def not_here(*devices: str) -> str | None:
    """Return why work on these devices is not measured, if so; with a GPU, the CPU is not."""
    gpus = torch.cuda.device_count()
    if "cpu" in devices:
        return "gpu-here" if gpus else None
    if gpus < len(set(devices)):
        return "one-gpu" if gpus else "no-gpu"
    return None


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


def in_turn(work: Seconds, roofline: Seconds, repeats: int) -> tuple[Times, Times]:
    """Return the seconds of both, ``repeats`` each; both run once before, to warm up."""
    work()
    roofline()
    pairs = [(work(), roofline()) for _ in range(repeats)]
    ours, theirs = np.array(pairs).T
    return ours, theirs


def spread(values: Iterable[float]) -> Spread:
    """Return minimum, median and maximum, to five digits."""
    known = sorted(values)
    kept = {"min": known[0], "median": statistics.median(known), "max": known[-1]}
    return {name: float(f"{value:.5g}") for name, value in kept.items()}
