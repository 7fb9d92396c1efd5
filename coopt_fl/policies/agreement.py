"""How well two participants agree on the shared set, and what their further targets then say.

Two participants' targets of one sample point in similar directions, those of different samples do
not. On S each pair gets a threshold halfway between the cosines of the former and of the latter; a
sample whose cosine is below it is *far*. How often that happens on S, with and without
correspondence, gives the odds of targets that come later: that half of them are of wrong samples
against that all are right. Their logarithms add up over samples, pairs and blocks. If all are right
they exceed x once in exp(x) times, however often one looks (Ville's inequality). Pairs that hardly
agree on S get odds near 1, so they give no evidence and need no special case.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt_fl.policies.audit import PREDICTS, Expected, Targets, spread

Directions = NDArray[np.float32]
Cosines = NDArray[np.float32]

_ROWS_OF_S = 512  # what pairs are compared on, at most
_LEAST_FAR = 0.02  # share of far samples that is always reckoned with: below 5 no one is accused
_DEVIATIONS = 3.0  # by which the share on S may be too low by chance
_TINY = 0.01  # of the spread: a target so close to the mean has no direction


class View:
    """One participant's directions: targets about their mean, scaled to unit length.

    Attributes:
        shared: float32 (at most 512, n) of held-out targets of S.
    """

    def __init__(self, expected: Expected) -> None:
        rows = len(expected.heldout)
        some = np.linspace(0, rows - 1, min(rows, _ROWS_OF_S)).astype(int)
        heldout = np.asarray(expected.heldout, np.float32)
        self.shared = _directions(heldout[some] - heldout.mean(axis=0), 0.0, 0.0)
        self._centre = np.asarray(expected.fitted, np.float32).mean(axis=0)
        self._least = _TINY * spread(heldout)
        self._none = np.nan if expected.r2 > PREDICTS else 0.0

    def of(self, targets: Targets) -> Directions:
        """Return the directions (r, n) of further targets.

        A target at the mean has none: zeros where an alignment that predicts next to nothing may
        have shrunk to it, which says nothing, and else NaN, which is far from every other.
        """
        rows = np.asarray(targets, np.float32) - self._centre
        return _directions(rows, self._least, self._none)


@dataclass(frozen=True)
class Agreement:
    """What is usual for a pair.

    Attributes:
        threshold: the cosine below which a sample is far.
        usual: share of samples that may be far if both are right: Wilson's upper limit.
        chance: share of samples that are far where targets do not correspond.
    """

    threshold: float
    usual: float
    chance: float

    def count(self, ours: Directions, theirs: Directions) -> tuple[int, int]:
        """Return how many of the samples (r,) say anything, and how many of those are far."""
        told = ours.any(axis=1) & theirs.any(axis=1)
        far = told & ~(_cosines(ours, theirs) >= self.threshold)
        return int(told.sum()), int(far.sum())

    def odds(self, far: int, rows: int) -> float:
        """Return the log odds of half of ``rows`` samples being wrong, when ``far`` are far."""
        if self.chance <= self.usual:
            return 0.0
        near = math.log((1 + (1 - self.chance) / (1 - self.usual)) / 2)
        return far * math.log((1 + self.chance / self.usual) / 2) + (rows - far) * near


def agreement(one: View, other: View) -> Agreement:
    """Return what is usual for two participants, from at least 4 samples of S."""
    ours, theirs, rows = one.shared, other.shared, len(one.shared)
    same = _cosines(ours, theirs)
    different = np.concatenate(
        [
            _cosines(left[:-shift], right[shift:])
            for left, right in ((ours, theirs), (theirs, ours))
            for shift in (rows // 4, rows // 2)
        ]
    )
    threshold = float(same.mean() + different.mean()) / 2
    usual = _upper_limit(int((same < threshold).sum()), rows)
    return Agreement(threshold, max(usual, _LEAST_FAR), float((different < threshold).mean()))


def _upper_limit(far: int, rows: int) -> float:
    square = _DEVIATIONS**2
    margin = _DEVIATIONS * math.sqrt(far * (rows - far) / rows + square / 4)
    return (far + square / 2 + margin) / (rows + square)


def _directions(rows: NDArray[np.float32], least: float, none: float) -> Directions:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Directions = np.divide(rows, norms, out=np.full_like(rows, none), where=norms > least)
    return unit


def _cosines(left: Directions, right: Directions) -> Cosines:
    cosines: Cosines = np.einsum("rn,rn->r", left, right)
    return cosines
