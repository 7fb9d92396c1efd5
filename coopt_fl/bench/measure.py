"""A case is measured in turn with its roofline, so that noise hits both alike."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl.core.extras import install_hint

Spread = dict[str, float]
"""``min``, ``median`` and ``max`` of a figure."""

Row = dict[str, Any]
"""A :class:`Case` with its figure, or with the reason why it has none; it can be JSON."""

SKIPPED = {
    "no-gpu": "there is no GPU",
    "one-gpu": "there are no two GPUs",
    "gpu-here": "for a host without GPU: hide it with CUDA_VISIBLE_DEVICES=",
    "no-bfloat16": "this CPU does not multiply bfloat16",
    "no-lightly-train": f"lightly-train is not installed: {install_hint('rival')}",
    "no-lightly": f"the baselines are not installed: {install_hint('baselines')}",
}
"""Why a case may have no figure."""


@dataclass(frozen=True)
class Reach:
    """A figure is good from ``bound`` on, or, if not ``at_least``, up to it."""

    bound: float
    at_least: bool = True

    def met(self, figure: Spread) -> bool:
        """Whether the median is good."""
        median = figure["median"]
        return median >= self.bound if self.at_least else median <= self.bound


@dataclass(frozen=True)
class Case:
    """One figure.

    Attributes:
        name: by which results are compared, such as ``optimize/array``.
        path: what is measured.
        roofline: what it is divided by.
        reach: what the figure should be; None where nothing is demanded.
        unit: of the figure; "" for a ratio.
    """

    name: str
    path: str
    roofline: str
    reach: Reach | None = None
    unit: str = ""

    def measured(self, figure: Spread, **details: Any) -> Row:
        """Return the row of a figure; ``details`` are numbers for those who want to know more."""
        reached = self.reach.met(figure) if self.reach else None
        found = {"figure": figure, "reached": reached, "skipped": None, "details": details}
        return {**asdict(self), **found}

    def skipped(self, reason: str) -> Row:
        """Return the row of what cannot be measured here; ``reason`` is a key of SKIPPED."""
        assert reason in SKIPPED
        nothing: Row = {"figure": None, "reached": None, "skipped": reason, "details": {}}
        return {**asdict(self), **nothing}


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
