"""Measuring a case alternately with its roofline, so that noise affects both equally."""

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
"""``min``, ``median`` and ``max`` of a measurement."""

Row = dict[str, Any]
"""A :class:`Case` with its figure, or with the reason why it has none, as JSON values."""

SKIPPED = {
    "no-gpu": "there is no GPU",
    "one-gpu": "there is only one GPU",
    "gpu-here": "only measured without a GPU: hide it with CUDA_VISIBLE_DEVICES=",
    "no-bfloat16": "this CPU does not multiply bfloat16",
    "no-lightly-train": f"lightly-train is not installed: {install_hint('rival')}",
    "no-lightly": f"the baselines are not installed: {install_hint('baselines')}",
}
"""Reasons for which a case is not measured."""


@dataclass(frozen=True)
class Reach:
    """The expected figure: at least ``bound``, or at most ``bound`` if not ``at_least``."""

    bound: float
    at_least: bool = True

    def met(self, figure: Spread) -> bool:
        """Return whether the median is as expected."""
        median = figure["median"]
        return median >= self.bound if self.at_least else median <= self.bound


@dataclass(frozen=True)
class Case:
    """One measured case.

    Attributes:
        name: key by which results are compared, such as ``optimize/array``.
        path: description of the measured code.
        roofline: description of the roofline, by which the speed is divided.
        reach: the expected figure; None if nothing is expected.
        unit: unit of the figure; "" for a ratio.
    """

    name: str
    path: str
    roofline: str
    reach: Reach | None = None
    unit: str = ""

    def measured(self, figure: Spread, **details: Any) -> Row:
        """Return the row of a figure; ``details`` are further numbers for the results file."""
        reached = self.reach.met(figure) if self.reach else None
        found = {"figure": figure, "reached": reached, "skipped": None, "details": details}
        return {**asdict(self), **found}

    def skipped(self, reason: str) -> Row:
        """Return the row of a case not measured on this host; ``reason`` is a key of SKIPPED."""
        assert reason in SKIPPED
        nothing: Row = {"figure": None, "reached": None, "skipped": reason, "details": {}}
        return {**asdict(self), **nothing}


Seconds = Callable[[], float]
"""A function that does some work and returns the seconds that its measured part took."""

Times = NDArray[np.float64]


def not_here(*devices: str) -> str | None:
    """Return the key of SKIPPED if work on these devices is not measured here, else None.

    Work on the CPU is not measured on a host with a GPU.
    """
    gpus = torch.cuda.device_count()
    if "cpu" in devices:
        return "gpu-here" if gpus else None
    if gpus < len(set(devices)):
        return "one-gpu" if gpus else "no-gpu"
    return None


def timed(work: Callable[[], Any]) -> Seconds:
    """Return a function that times ``work`` as a whole, waiting for the GPUs."""

    def seconds() -> float:
        synchronise()
        started = time.perf_counter()
        work()
        synchronise()
        return time.perf_counter() - started

    return seconds


def synchronise() -> None:
    """Wait until all GPUs have finished their work."""
    for device in range(torch.cuda.device_count()):
        torch.cuda.synchronize(device)


def in_turn(work: Seconds, roofline: Seconds, repeats: int) -> tuple[Times, Times]:
    """Run both alternately and return ``repeats`` times of each, after one warm-up run."""
    work()
    roofline()
    pairs = [(work(), roofline()) for _ in range(repeats)]
    ours, theirs = np.array(pairs).T
    return ours, theirs


def spread(values: Iterable[float]) -> Spread:
    """Return minimum, median and maximum, rounded to five significant digits."""
    known = sorted(values)
    kept = {"min": known[0], "median": statistics.median(known), "max": known[-1]}
    return {name: float(f"{value:.5g}") for name, value in kept.items()}
