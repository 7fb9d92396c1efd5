"""The default audit policy, and its tests of one participant's payload by itself.

The platform has every participant's features of the shared set S and its alignment, so it knows
which targets of S the participant must return, and how widely its other targets are spread.
Comparisons between participants are in :mod:`coopt_fl.policies.evidence`, the test of a payload's
spread in :mod:`coopt_fl.policies.spreads`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from coopt_fl.optimized.block import Block
from coopt_fl.policies import evidence
from coopt_fl.policies.evidence import Comparison, Expected, Targets, spread
from coopt_fl.policies.spreads import Alike, odd_spread

FEWEST_SKIPPED = 5
"""Fewest samples that only one participant skips for this to count against it."""

TOLERANCE = {"float32": 0.1, "float16": 0.2, "bfloat16": 0.75, "auto": 0.75}
"""How far rounding may move a target, as a fraction of the targets' spread."""

_ROUNDING = 2.0**-10  # float16 keeps 11 bits


@dataclass(frozen=True, eq=False)
class Known:
    """What a participant has delivered of the shared set.

    Attributes:
        ids: int64 (S',), ascending: the shared samples whose features it delivered.
        targets: float32 (S', n): its alignment applied to these features.
    """

    ids: NDArray[np.int64]
    targets: Targets


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
            alike: whose spread to compare with whose; None if that says nothing: the reference's
                projection was fitted on the block or on S alone, or a partition gave out its
                samples by class or column.
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
