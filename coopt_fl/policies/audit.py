"""The default audit policy, and its tests of one participant's payload by itself.

The platform has every participant's features of the shared set S and its alignment, so it knows
which targets of S the participant must return, and how widely its other targets are spread.
Comparisons between participants are in :mod:`coopt_fl.policies.evidence`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from coopt_fl.optimized.block import Block
from coopt_fl.policies import evidence
from coopt_fl.policies.evidence import PREDICTS, Comparison, Expected, Targets, distances, spread

FEWEST_ROWS = 20
"""Fewest rows whose spread is judged."""

FEWEST_SKIPPED = 5
"""Fewest samples that only one participant skips for this to count against it."""

TOLERANCE = {"float32": 0.1, "float16": 0.2, "bfloat16": 0.75, "auto": 0.75}
"""How far rounding may move a target, as a fraction of the targets' spread."""

_ROUNDING = 2.0**-10  # float16 keeps 11 bits
_SURE = 5.0  # standard deviations: there are thousands of blocks
_FEW_VALUES = 0.25  # least share of the distinct rows and of the dimensions of targets of S


@dataclass(frozen=True, eq=False)
class Known:
    """What a participant has delivered of the shared set.

    Attributes:
        ids: int64 (S',), ascending: the shared samples whose features it delivered.
        targets: float32 (S', n): its alignment applied to these features.
    """

    ids: NDArray[np.int64]
    targets: Targets


@dataclass(frozen=True, eq=False)
class Alike:
    """Samples that look alike, so that a participant's targets of them are spread alike.

    Attributes:
        rows: bool (R,), the rows of a payload that are of the block itself.
        shared: bool (S,), the shared samples that are like them: all of them, if the block is a
            random sample of all images; those of its region, if it was cut within one.
    """

    rows: NDArray[np.bool_]
    shared: NDArray[np.bool_]


class Answer(NamedTuple):
    """The two targets of one audited sample.

    Attributes:
        owner: the participant whose block contains the sample.
        block: that block.
        auditor: the participant that was asked for it a second time; may be the owner itself.
        unit: the auditor's block whose unit contained it.
        ours: float16 (n,), the owner's target; None: it was skipped.
        theirs: float16 (n,), the auditor's; None: it was skipped.
    """

    owner: str
    block: int
    auditor: str
    unit: int
    ours: Targets | None
    theirs: Targets | None


@dataclass(frozen=True)
class Verdict:
    """Why a participant is rejected: a sentence, and the numbers behind it as plain values."""

    sentence: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Judgement:
    """The outcome of an audit.

    Attributes:
        rejected: the verdict on each rejected participant, by name.
        undecided: a sentence on each disagreement in which nobody can tell who is right.
        samples: how many samples two participants answered.
    """

    rejected: Mapping[str, Verdict]
    undecided: Sequence[str]
    samples: int


class AuditPolicy(Protocol):
    """Decides which payloads are refused and which participants are rejected."""

    def inspect(
        self, unit: Block, known: Known, expected: Expected, alike: Alike | None
    ) -> str | None:
        """Return what is wrong with one payload by itself, or None.

        Args:
            unit: the targets of one block, with its audit samples.
            known: what the participant has delivered of the shared set.
            expected: what its targets have to be like.
            alike: the samples whose spread can be compared; None if none can: the reference's
                projection was fitted on them, or a partition gave them out by class or column.
        """

    def judge(self, expected: Mapping[str, Expected], answers: Sequence[Answer]) -> Judgement:
        """Decide on the samples with two answers, once all blocks are stored."""


@dataclass(frozen=True)
class Audit:
    """The default: participants must agree with themselves, and with the majority of the others.

    Attributes:
        precision: the priors' arithmetic, a key of ``TOLERANCE``.
        private: whether targets are clipped and noisy. Then only the majority test is made: noise
            depends on every bit of a row, so a participant need not agree with itself.
    """

    precision: str = "float32"
    private: bool = False

    def inspect(
        self, unit: Block, known: Known, expected: Expected, alike: Alike | None
    ) -> str | None:
        """Check shared samples against the features delivered before, and the spread of all."""
        if self.private:
            return None
        if np.isin(unit.skipped, known.ids).any():
            return "it skips shared samples of which it had features"
        problem, here = None, np.isin(unit.ids, known.ids)
        if here.any():
            wanted = known.targets[np.searchsorted(known.ids, unit.ids[here])]
            scale = spread(expected.fitted)
            problem = inconsistent(unit.targets[here], wanted, scale, self.precision)
            problem = problem and f"of the shared samples, {problem}"
        if problem is None and alike is not None:
            problem = odd_spread(unit.targets[alike.rows], expected, alike.shared)
        return problem

    def judge(self, expected: Mapping[str, Expected], answers: Sequence[Answer]) -> Judgement:
        """Reject participants that contradict the others or themselves, or skip too much."""
        found = evidence.judge(expected, _compared(answers))
        rejected = {
            name: Verdict(one.sentence, asdict(one)) for name, one in found.rejected.items()
        }
        contradictions = self._self_contradictions(expected, _compared(answers))
        for name, sentence in (contradictions | _needless_skips(answers)).items():
            rejected.setdefault(name, Verdict(sentence, {}))
        samples = sum(one.owner != one.auditor and _both(one) for one in answers)
        return Judgement(rejected, found.undecided, samples)

    def _self_contradictions(
        self, expected: Mapping[str, Expected], comparisons: Iterable[Comparison]
    ) -> dict[str, str]:
        """Return a sentence on each participant that gave two different answers to the same ids."""
        found: dict[str, str] = {}
        for one in comparisons:
            if one.owner == one.auditor and not self.private:
                scale = spread(expected[one.owner].fitted)
                if problem := inconsistent(one.theirs, one.ours, scale, self.precision):
                    where = f"of samples asked for twice, with blocks {one.block} and {one.unit}"
                    found.setdefault(one.owner, f"{where}, {problem}")
        return found


def inconsistent(
    targets: Targets, expected: Targets, scale: float, precision: str = "float32"
) -> str | None:
    """Return evidence that ``targets`` are not ``expected``, or None.

    For ids of S, ``expected`` is the participant's alignment applied to its own features; for ids
    that it was asked for twice, its first answer. Neither needs other participants.

    Args:
        targets: (r, n), as delivered.
        expected: (r, n), what they should be.
        scale: :func:`spread` of the participant's expected targets of S.
        precision: its prior's arithmetic, a key of ``TOLERANCE``.
    """
    wanted = np.asarray(expected, np.float64)
    off = np.linalg.norm(np.asarray(targets, np.float64) - wanted, axis=1)
    rounding = _ROUNDING * np.linalg.norm(wanted, axis=1)
    wrong = ~(off <= TOLERANCE[precision] * scale + rounding)
    if not wrong.any():
        return None
    worst = f", by up to {off.max() / scale:.2f} times their spread" if scale > 0 else ""
    return f"{wrong.sum()} of {len(off)} targets differ from what they have to be{worst}"


def odd_spread(
    targets: Targets, expected: Expected, like: NDArray[np.bool_] | slice = slice(None)
) -> str | None:
    """Return evidence that the spread of targets (R, n) is too wide or narrow, or None.

    Their median distance from the mean is compared with that of held-out targets of S. The two
    differ by chance, and because held-out targets come from alignments fitted on fewer samples. The
    allowed difference was measured (docs/decisions/2026-11-27-audit-spread.md); it grows as S has
    fewer samples beyond the width n. An alignment that predicts next to nothing may have shrunk its
    targets to any extent, so only targets wider than both the fitted and the held-out ones are odd.
    Targets with few distinct values, or in few dimensions, are odd, too. Held-out targets of images
    that are all the same differ, so fitted ones tell how little spread there may be.

    Fewer than 20 rows are not judged. Do not call this for rows that the reference's projection was
    fitted on: in everyone's targets they are spread more widely than all others.

    Args:
        targets: as delivered, of some block.
        expected: the participant's targets of S.
        like: bool (S,), the shared samples that are like those of the block; all by default. Their
            own median adds to what may differ by chance
            (docs/decisions/2026-11-30-spread-within-regions.md).
    """
    heldout, fitted = expected.heldout[like], expected.fitted[like]
    rows, shared, whole = len(targets), len(heldout), len(expected.heldout)
    if min(rows, shared) < FEWEST_ROWS:
        return None
    known = distances(heldout)
    wide, narrow = float(np.median(known)), min(float(np.median(known)), spread(fitted))
    spare = max(whole - heldout.shape[1], 1)
    # relative standard error of the medians of so many distances
    drawn = math.sqrt(1 / rows + 1 / shared - 1 / whole)
    error = 1.25 * float(known.std()) / wide * drawn if wide > 0 else 0.0
    slack = math.hypot(0.2 + 2 / math.sqrt(spare), _SURE * error)
    if predicts := expected.r2 > PREDICTS:
        if reason := _few_values(targets, heldout, fitted):
            return reason
    else:
        wide = max(wide, spread(fitted))
        slack += math.log(2)
    seen = spread(targets)
    if seen > wide * math.exp(slack) or (predicts and seen < narrow * math.exp(-slack)):
        ratio = seen / wide if wide > 0 else math.inf
        return f"{rows} targets are spread {ratio:.2f} times as wide as its targets of S are"
    return None


def _few_values(targets: Targets, heldout: Targets, fitted: Targets) -> str | None:
    """Return evidence that the rows repeat each other or fill few dimensions, or None.

    As many rows are compared as there are in S, up to 256, because both depend on that number.
    """
    count = min(len(targets), len(heldout), 256)
    said, *own = (
        one[np.linspace(0, len(one) - 1, count).astype(int)] for one in (targets, heldout, fitted)
    )
    distinct, usually = _distinct(said), min(map(_distinct, own))
    if distinct < _FEW_VALUES * usually:
        return f"{count} targets have only {distinct} different values"
    filled, usual = _dimension(said), min(map(_dimension, own))
    if filled < _FEW_VALUES * usual:
        return f"{count} targets fill {filled:.1f} dimensions, its targets of S {usual:.1f}"
    return None


def _distinct(targets: Targets) -> int:
    return len({row.tobytes() for row in np.asarray(targets, np.float16)})


def _dimension(targets: Targets) -> float:
    """Return the participation ratio of the principal components, 1 for points on a line."""
    exact = np.asarray(targets, np.float64)
    centred = exact - exact.mean(axis=0)
    gram = centred @ centred.T
    energy = float((gram * gram).sum())
    return float(np.trace(gram)) ** 2 / energy if energy > 0 else 0.0


def _both(one: Answer) -> bool:
    return one.ours is not None and one.theirs is not None


def _compared(answers: Sequence[Answer]) -> Iterator[Comparison]:
    """Yield the samples with two answers, by block and unit; memory holds one unit's at a time."""
    for _, of_unit in groupby(answers, key=lambda one: one.unit):
        found: dict[tuple[str, int, str, int], list[Answer]] = {}
        for one in filter(_both, of_unit):
            found.setdefault(one[:4], []).append(one)
        for key, some in found.items():
            yield Comparison(
                *key,
                ours=np.stack([one.ours for one in some if one.ours is not None]),
                theirs=np.stack([one.theirs for one in some if one.theirs is not None]),
            )


def _needless_skips(answers: Sequence[Answer]) -> dict[str, str]:
    """Return a sentence on each participant that skips many samples that others can read."""
    skipped, asked = Counter[str](), Counter[str]()
    for one in answers:
        if one.owner != one.auditor and one.theirs is not None:
            asked[one.owner] += 1
            skipped[one.owner] += one.ours is None
    return {
        name: f"it skips {count} of {asked[name]} audited samples that others can read"
        for name, count in skipped.items()
        if count >= FEWEST_SKIPPED and count > asked[name] / 4
    }
