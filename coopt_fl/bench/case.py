"""What is measured, its roofline, and the ratio that it should reach."""

from dataclasses import asdict, dataclass
from typing import Any

Spread = dict[str, float]
"""``min``, ``median`` and ``max`` of a figure."""

Row = dict[str, Any]
"""A :class:`Case` with its figure, or with the reason why it has none; it can be JSON."""

SKIPPED = {
    "no-gpu": "there is no GPU",
    "one-gpu": "there are no two GPUs",
    "gpu-here": "for a host without GPU: hide it with CUDA_VISIBLE_DEVICES=",
    "no-lightly": "the baselines are not installed: pip install 'coopt-fl[baselines]'",
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
        return self._row(figure=figure, reached=reached, details=details)

    def skipped(self, reason: str) -> Row:
        """Return the row of what cannot be measured here; ``reason`` is a key of SKIPPED."""
        assert reason in SKIPPED
        return self._row(skipped=reason)

    def _row(self, **known: Any) -> Row:
        nothing: Row = {"figure": None, "reached": None, "skipped": None, "details": {}}
        return {**asdict(self), **nothing, **known}
