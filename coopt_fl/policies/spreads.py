"""Is a block of targets spread as the participant's targets of the shared set S say?

Targets that repeat each other, lie on a line, or are spread too widely or too narrowly do not come
from the participant's prior and alignment. Nobody else's targets are needed to tell.
"""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt_fl.data.blocks import among
from coopt_fl.policies.evidence import PREDICTS, Expected, Targets

FEWEST_ROWS = 20
"""Fewest rows whose spread is judged."""

_SURE = 5.0  # standard deviations: there are thousands of blocks
_LEAST = 0.25  # least share of different rows, of equal pairs, and of dimensions
_PAIRS = 20  # fewest equal pairs to expect in S before their absence says something
_MANY_ROWS = 1024  # fewest rows with a single pair each
_MOST_ROWS = 512  # of S that are compared with all others
_DIFFERENT = 0.9  # least share of different rows of S for dimensions to be compared


@dataclass(frozen=True, eq=False)
class Alike:
    """Samples of a payload, and shared samples that are like them.

    Attributes:
        rows: bool (R,), the rows of the payload that are judged.
        shared: bool (S,), the rows of ``Expected`` that they are compared with.
    """

    rows: NDArray[np.bool_]
    shared: NDArray[np.bool_]

    @classmethod
    def everything(cls, rows: int, shared: int) -> "Alike":
        """Compare all rows with all of S: both are random samples of all images."""
        return cls(np.ones(rows, bool), np.ones(shared, bool))

    @classmethod
    def within(
        cls, ids: NDArray[np.int64], block: NDArray[np.int64], shared: NDArray[np.bool_]
    ) -> "Alike":
        """Compare a block's own samples with the ``shared`` ones of its region.

        Args:
            ids: int64 (R,), of the payload's rows.
            block: int64, ascending, ids of the block.
            shared: bool (S,).
        """
        return cls(among(ids, block), shared)


def odd_spread(
    targets: Targets, expected: Expected, like: NDArray[np.bool_] | slice = slice(None)
) -> str | None:
    """Return evidence that the spread of targets (R, n) is odd, or None.

    The median distance of pairs of them is compared with that of held-out targets of S; see
    :func:`_limits`. Targets that repeat each other or fill few dimensions are odd, too. An
    alignment that predicts next to nothing may have shrunk its targets to any extent, so only
    targets wider than both the fitted and the held-out ones are odd.

    Images may be copies of each other, or nearly so, such as blank ones. Chance decides how many of
    them are in a block, so what may be odd depends on how many are in S.

    Fewer than 20 rows are not judged. Do not call this for rows that the reference's projection was
    fitted on: in everyone's targets they are spread more widely than all others.

    Args:
        targets: as delivered, of a block.
        expected: the participant's targets of S.
        like: bool (S,), the shared samples that the block's are like; by default all.
    """
    heldout, fitted = expected.heldout[like], expected.fitted[like]
    rows, shared, whole = len(targets), len(heldout), len(expected.heldout)
    if min(rows, shared) < FEWEST_ROWS:
        return None
    predicts = expected.r2 > PREDICTS
    if predicts and (reason := _repeated(targets, fitted) or _flat(targets, heldout, fitted)):
        return reason
    narrow, wide = _limits(rows, heldout, fitted, whole, predicts=predicts)
    seen = float(np.median(_distances(targets)))
    if seen > wide or (predicts and seen < narrow):
        usual = float(np.median(_distances(heldout)))
        ratio = seen / usual if usual > 0 else math.inf
        return (
            f"{rows} targets are spread {ratio:.2f} times as wide as its targets of {shared} "
            "shared samples like them"
        )
    return None


def _limits(
    rows: int, heldout: Targets, fitted: Targets, whole: int, *, predicts: bool
) -> tuple[float, float]:
    """Return the least and the greatest median distance of pairs that is not odd.

    It differs from that of S because held-out targets come from alignments fitted on fewer samples.
    How much was measured (docs/decisions/2026-11-27-audit-spread.md); it grows as S has fewer
    samples beyond the width n. It differs by chance, too, as far as ranks of the distances in S
    tell: unlike a standard error, these hold where distances have several peaks.

    Args:
        rows: number of targets.
        heldout: (s, n), held-out targets of the s shared samples that are like them.
        fitted: (s, n), fitted targets of these.
        whole: number of all shared samples.
        predicts: whether the alignment predicts more than next to nothing.
    """
    measured = 0.2 + 2 / math.sqrt(max(whole - heldout.shape[1], 1))
    narrow, wide = math.inf, 0.0
    for targets in (heldout, fitted):
        known = _distances(targets)
        off = _SURE * _rank_error(rows, targets, float(np.median(known)))
        ranks = [max(0.5 - off, 0.0), 0.5, min(0.5 + off, 1.0)]
        least, middle, most = (float(one) for one in np.quantile(known, ranks))
        if least == 0:
            narrow = 0.0
        else:
            narrow = min(narrow, middle * math.exp(-math.hypot(measured, math.log(middle / least))))
        if targets is fitted and predicts:
            continue
        if middle == 0:
            wide = max(wide, most)
        else:
            wide = max(wide, middle * math.exp(math.hypot(measured, math.log(most / middle))))
    return narrow, wide if predicts else 2 * wide


def _rank_error(rows: int, targets: Targets, distance: float) -> float:
    """Return the standard error of the share of pairs that are nearer than ``distance``.

    This is the difference of this share between so many other rows and ``targets`` (s, n). The
    share is a U-statistic (Hoeffding 1948): its error is that of each row's own share, and that of
    not looking at all pairs.
    """
    some = _some(np.asarray(targets, np.float64), _MOST_ROWS)
    lengths = np.square(some).sum(axis=1)
    squares = lengths[:, None] + lengths - 2 * some @ some.T
    own = (squares <= distance**2).mean(axis=1)
    of_own = 4 * float(own.var())
    return math.sqrt(sum((of_own + 0.25 / _shifts(n)) / n for n in (rows, len(targets))))


def _repeated(targets: Targets, fitted: Targets) -> str | None:
    """Return evidence that the rows repeat each other more often than fitted targets of S, or None.

    Images may be copies of each other. Then their targets are equal, those of S as well.
    """
    counts, own = (_counts(one) for one in (targets, fitted))
    rows, shared = len(targets), len(fitted)
    expected = _pairs(counts) / _pairs([rows]) * _pairs([shared])
    few = len(counts) < _LEAST * rows
    if few and expected > _PAIRS and _pairs(own) < _LEAST * expected:
        return f"{rows} targets have only {len(counts)} different values"
    return None


def _counts(targets: Targets) -> list[int]:
    """Return how often each different row occurs."""
    return [*Counter(row.tobytes() for row in np.asarray(targets, np.float16)).values()]


def _pairs(counts: list[int]) -> float:
    """Return the number of pairs of equal rows."""
    return sum(count * (count - 1) / 2 for count in counts)


def _flat(targets: Targets, heldout: Targets, fitted: Targets) -> str | None:
    """Return evidence that the rows fill fewer dimensions than those of S do, or None.

    If a tenth of S repeats itself, chance decides how many other targets a block has.
    """
    rows = len(targets)
    if len(_counts(fitted)) <= _DIFFERENT * len(fitted):
        return None
    filled = _dimension(targets)  # of all rows, as it grows with their number
    usual = min(_dimension(_some(one, rows)) for one in (heldout, fitted))
    if filled < _LEAST * usual:
        return f"{rows} targets fill {filled:.1f} dimensions, its targets of S {usual:.1f}"
    return None


def _dimension(targets: Targets) -> float:
    """Return the participation ratio of the directions of differences, 1 for points on a line."""
    differences = _differences(targets, len(targets) // 2)
    lengths = np.linalg.norm(differences, axis=1)
    unit = differences[lengths > 0] / lengths[lengths > 0, None]
    gram = unit @ unit.T if unit.shape[1] > len(unit) else unit.T @ unit
    energy = float((gram * gram).sum())
    return float(np.trace(gram)) ** 2 / energy if energy > 0 else 0.0


def _distances(targets: Targets) -> NDArray[np.float32]:
    """Return the distances (P,) of pairs of the targets (R, n): no middle has to be chosen."""
    rows = len(targets)
    found: NDArray[np.float32] = np.concatenate(
        [
            np.linalg.norm(_differences(targets, int(shift)), axis=1)
            for shift in np.linspace(rows / 2, rows / 4, _shifts(rows))
        ]
    )
    return found


def _shifts(rows: int) -> int:
    """Return how many pairs each of so many rows is part of, for :func:`_distances`."""
    return 4 if rows < _MANY_ROWS else 1


def _differences(targets: Targets, shift: int) -> NDArray[np.float32]:
    """Return the differences (R, n) of rows that are ``shift`` rows apart."""
    exact = np.asarray(targets, np.float32)
    found: NDArray[np.float32] = exact - np.roll(exact, shift, axis=0)
    return found


def _some(targets: Targets, most: int) -> Targets:
    """Return at most so many of the rows, evenly spaced."""
    count = min(len(targets), most)
    found: Targets = targets[np.linspace(0, len(targets) - 1, count).astype(int)]
    return found
