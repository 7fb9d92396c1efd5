"""Whom to believe: tests of one participant's payload alone, and the default policy of an audit.

The platform has every participant's features of the shared set S and its alignment, so it knows
what the participant has to answer for S, and how widely its targets of other samples are spread.
What others say about it is in :mod:`coopt_fl.policies.evidence`.
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
"""Rows from which on a spread is judged."""

FEWEST_SKIPPED = 5
"""Samples that only one cannot read, from which on that is no accident."""

TOLERANCE = {"float32": 0.1, "float16": 0.2, "bfloat16": 0.75, "auto": 0.75}
"""How far arithmetic may move a target, as a share of their spread."""

_ROUNDING = 2.0**-10  # float16 keeps 11 bits
_SURE = 5.0  # standard deviations, for there are thousands of blocks
_FEW_VALUES = 0.25  # of the rows are distinct; of the dimensions that held-out targets fill


@dataclass(frozen=True, eq=False)
class Known:
    """What a participant has said of the shared set.

    Attributes:
        ids: int64 (S',), ascending: the shared samples of which it has delivered features.
        targets: float32 (S', n): what its alignment makes of these features.
    """

    ids: NDArray[np.int64]
    targets: Targets


class Answer(NamedTuple):
    """What two participants said of one audited sample; None: it was skipped.

    Attributes:
        owner: whose block the sample stands in.
        block: that block.
        auditor: who was asked for it once more; may be the owner itself.
        unit: the auditor's block with which it was asked for it.
        ours: float16 (n,) by the owner.
        theirs: float16 (n,) by the auditor.
    """

    owner: str
    block: int
    auditor: str
    unit: int
    ours: Targets | None
    theirs: Targets | None


@dataclass(frozen=True)
class Verdict:
    """Why a participant is rejected: a sentence for people, and numbers as plain values."""

    sentence: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Judgement:
    """What comes of an audit.

    Attributes:
        rejected: by name.
        undecided: sentences on disagreements in which nobody can tell who is right.
        samples: how many were answered by two participants.
    """

    rejected: Mapping[str, Verdict]
    undecided: Sequence[str]
    samples: int


class AuditPolicy(Protocol):
    """Decides whom to believe."""

    def inspect(
        self, unit: Block, known: Known, expected: Expected, *, projected: bool
    ) -> str | None:
        """Return what is wrong with one payload by itself, or None.

        Args:
            unit: the targets of one block, with its audit samples.
            known: what the participant has said of the shared set.
            expected: what its targets have to be like.
            projected: whether the spread of this block tells nothing: the reference's projection
                was fitted on it, or its samples were given out by class or by a column.
        """

    def judge(self, expected: Mapping[str, Expected], answers: Sequence[Answer]) -> Judgement:
        """Decide, once all blocks are there, on what was answered twice."""


@dataclass(frozen=True)
class Audit:
    """The default: participants must agree with themselves, and with the majority of the others.

    Attributes:
        precision: of the priors' arithmetic.
        private: whether targets come clipped and with noise, so that a row that differs in its last
            bit has other noise; then only the majority is asked.
    """

    precision: str = "float32"
    private: bool = False

    def inspect(
        self, unit: Block, known: Known, expected: Expected, *, projected: bool
    ) -> str | None:
        """Compare shared samples with the features that came before, and the spread of all."""
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
        if problem is None and not projected:
            problem = odd_spread(unit.targets, expected)
        return problem

    def judge(self, expected: Mapping[str, Expected], answers: Sequence[Answer]) -> Judgement:
        """Reject who is contradicted by the others or by itself, and who skips too much."""
        found = evidence.judge(expected, _compared(answers))
        rejected = {
            name: Verdict(one.sentence, asdict(one)) for name, one in found.rejected.items()
        }
        turncoats = self._turncoats(expected, _compared(answers))
        for name, sentence in (turncoats | _idlers(answers)).items():
            rejected.setdefault(name, Verdict(sentence, {}))
        samples = sum(one.owner != one.auditor and _both(one) for one in answers)
        return Judgement(rejected, found.undecided, samples)

    def _turncoats(
        self, expected: Mapping[str, Expected], comparisons: Iterable[Comparison]
    ) -> dict[str, str]:
        """Return who answered twice to the same ids, and not the same, in words."""
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
    (docs/decisions/2026-11-27-audit-spread.md); it is the more the fewer samples S has beyond the
    width n. An alignment that predicts next to nothing may have shrunk to any extent, so that only
    targets wider than both the fitted and the held-out ones are odd. Fewer than 20 rows are not
    judged. Do not call it for rows that the reference's projection was fitted on: they are spread
    more widely than all others, in everyone's targets.
    """
    rows, shared = len(targets), len(expected.heldout)
    if min(rows, shared) < FEWEST_ROWS:
        return None
    known = distances(expected.heldout)
    wide = narrow = float(np.median(known))
    spare = max(shared - expected.heldout.shape[1], 1)
    # of a median of so many distances, relative
    error = 1.25 * float(known.std()) / (wide * math.sqrt(rows)) if wide > 0 else 0.0
    slack = math.hypot(0.2 + 2 / math.sqrt(spare), _SURE * error)
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


def _both(one: Answer) -> bool:
    return one.ours is not None and one.theirs is not None


def _compared(answers: Sequence[Answer]) -> Iterator[Comparison]:
    """Yield what was answered twice, by block and unit; memory holds one unit's at a time."""
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


def _idlers(answers: Sequence[Answer]) -> dict[str, str]:
    """Return who skips samples that others can read, and how many, in words."""
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
