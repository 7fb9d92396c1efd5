"""What one participant's payload says about itself: two tests that need nobody else.

The platform has every participant's features of the shared set S and its alignment, so it knows
what the participant has to answer for S, and how widely its targets of other samples are spread.
What others say about it is in :mod:`coopt_fl.policies.evidence`.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Targets = NDArray[np.floating]

FEWEST_ROWS = 20
"""Rows from which on a spread is judged."""

TOLERANCE = {"float32": 0.1, "float16": 0.2, "bfloat16": 0.75}
"""How far arithmetic may move a target, as a share of their spread."""

PREDICTS = 0.1
"""R2 from which on held-out targets are as wide as those of other samples."""

_ROUNDING = 2.0**-10  # float16 keeps 11 bits
_SURE = 5.0  # standard deviations, for there are thousands of blocks
_FEW_VALUES = 0.25  # of the rows are distinct; of the dimensions that held-out targets fill


@dataclass(frozen=True, eq=False)
class Expected:
    """What a participant's targets have to be like.

    With privacy noise all three are to be made of features as they came, and ``heldout`` is to
    get the noise of targets; ``fitted`` then says nothing about single rows.

    Attributes:
        fitted: (S, n) what its alignment makes of its features of the shared set.
        heldout: (S, n) what alignments fitted without the row make of them
            (:func:`coopt_fl.targets.heldout_targets`); of the reference's projection, ``fitted``.
        r2: Share of the variance of S_Y* that ``heldout`` predicts; of the reference 1.
    """

    fitted: Targets
    heldout: Targets
    r2: float


def spread(targets: Targets) -> float:
    """Return the median distance of targets (R, n) from their mean."""
    return float(np.median(_distances(targets)))


def inconsistent(
    targets: Targets, expected: Targets, scale: float, precision: str = "float32"
) -> str | None:
    """Return evidence that ``targets`` are not ``expected``, or None.

    For ids of S, ``expected`` is what the participant's alignment makes of its own features; for
    ids that it was asked for a second time, its first answer. Neither needs anybody else.

    Args:
        targets: (r, n) as they came.
        expected: (r, n) what they should be.
        scale: :func:`spread` of what the participant should answer for S.
        precision: of its prior's arithmetic.
    """
    wanted = np.asarray(expected, np.float64)
    off = np.linalg.norm(np.asarray(targets, np.float64) - wanted, axis=1)
    rounding = _ROUNDING * np.linalg.norm(wanted, axis=1)
    wrong = ~(off <= TOLERANCE[precision] * scale + rounding)
    if not wrong.any():
        return None
    worst = f", by up to {off.max() / scale:.2f} times their spread" if scale > 0 else ""
    return f"{wrong.sum()} of {len(off)} targets differ from what they have to be{worst}"


def odd_spread(targets: Targets, expected: Expected) -> str | None:
    """Return evidence that targets (R, n) are too wide, too narrow, or too few, or None.

    Their distances from the mean are compared with those of held-out targets of S, which differ
    by chance, and because those were made by alignments that knew less: by how much was measured
    (docs/decisions.md); it is the more the fewer samples S has beyond the width n. An alignment
    that predicts next to nothing may have shrunk to any extent, so that only targets wider than
    both the fitted and the held-out ones are odd. Fewer than 20 rows are not judged; nor must those
    be that the reference's projection was fitted on, which spreads them more than any others, in
    the targets of everyone aligned to it.
    """
    rows, shared = len(targets), len(expected.heldout)
    if min(rows, shared) < FEWEST_ROWS:
        return None
    known = _distances(expected.heldout)
    wide = narrow = float(np.median(known))
    spare = max(shared - expected.heldout.shape[1], 1)
    slack = math.hypot(0.2 + 2 / math.sqrt(spare), _SURE * _relative_error(known, rows))
    if predicts := expected.r2 > PREDICTS:
        if reason := _few_values(targets, expected.heldout):
            return reason
    else:
        wide = max(wide, spread(expected.fitted))
        slack += math.log(2)
    seen = spread(targets)
    if seen > wide * math.exp(slack) or (predicts and seen < narrow * math.exp(-slack)):
        ratio = seen / wide if wide > 0 else math.inf
        return f"{rows} targets are spread {ratio:.2f} times as wide as its targets of S are"
    return None


def _distances(targets: Targets) -> NDArray[np.float64]:
    exact = np.asarray(targets, np.float64)
    distances: NDArray[np.float64] = np.linalg.norm(exact - exact.mean(axis=0), axis=1)
    return distances


def _relative_error(known: NDArray[np.float64], rows: int) -> float:
    """Return the standard error of a median of ``rows`` distances like ``known``, relative."""
    middle = float(np.median(known))
    return 1.25 * float(known.std()) / (middle * math.sqrt(rows)) if middle > 0 else 0.0


def _few_values(targets: Targets, heldout: Targets) -> str | None:
    """Return evidence that the rows repeat each other, or lie on a line, or None."""
    distinct = len({row.tobytes() for row in np.asarray(targets, np.float16)})
    if distinct < _FEW_VALUES * len(targets):
        return f"{len(targets)} targets have only {distinct} different values"
    count = min(len(targets), len(heldout), 256)  # a dimension depends on the number of rows
    filled, usual = _dimension(targets[:count]), _dimension(heldout[:count])
    if filled < _FEW_VALUES * usual:
        return f"{count} targets fill {filled:.1f} dimensions, its targets of S {usual:.1f}"
    return None


def _dimension(targets: Targets) -> float:
    """Return the participation ratio of the principal components, 1 for points on a line."""
    exact = np.asarray(targets, np.float64)
    centred = exact - exact.mean(axis=0)
    gram = centred @ centred.T
    energy = float((gram * gram).sum())
    return float(np.trace(gram)) ** 2 / energy if energy > 0 else 0.0
