"""Evidence from audited samples: do participants agree as well as on the shared set?

Two participants' targets of one sample point in similar directions, those of different samples do
not. On S each pair gets a threshold halfway between the cosines of the former and of the latter; a
sample whose cosine is below it is *far*. The shares of far samples on S, for the same and for
different samples, give the odds of later targets: half of them are of wrong samples, against all
are right. Log odds add up over samples, pairs and blocks. If all are right, the odds exceed exp(x)
with a probability of at most exp(-x), however often one looks (Ville's inequality). Pairs that
hardly agree on S get odds near 1, so they give no evidence and need no special case.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Targets = NDArray[np.floating]

Directions = NDArray[np.float32]
Cosines = NDArray[np.float32]

PREDICTS = 0.1
"""Least held-out R2 at which held-out targets are spread as widely as those of new samples."""

_ROWS_OF_S = 512  # most rows of S that pairs are compared on
_LEAST_FAR = 0.02  # least usual share of far samples: fewer than 5 accuse nobody
_DEVIATIONS = 3.0  # standard deviations by which the share on S may be too low
_TINY = 0.01  # of the spread: a target so close to the mean has no direction


@dataclass(frozen=True, eq=False)
class Expected:
    """What a participant's targets have to be like.

    With privacy, all three are computed from the noisy features as delivered, and ``heldout`` gets
    the noise of targets; single rows of ``fitted`` then mean nothing.

    Attributes:
        fitted: (S, n), its alignment applied to its features of the shared set.
        heldout: (S, n), the same by alignments fitted without the row
            (:class:`coopt_fl.targets.HeldOut`); for the reference, ``fitted``.
        r2: Share of the variance of S_Y* that ``heldout`` predicts; 1 for the reference.
    """

    fitted: Targets
    heldout: Targets
    r2: float


def spread(targets: Targets) -> float:
    """Return the median distance of targets (R, n) from their mean."""
    return float(np.median(distances(targets)))


def distances(targets: Targets) -> NDArray[np.float64]:
    """Return the distance of each of targets (R, n) from their mean."""
    exact = np.asarray(targets, np.float64)
    distances: NDArray[np.float64] = np.linalg.norm(exact - exact.mean(axis=0), axis=1)
    return distances


class Profile:
    """One participant's directions: targets about their mean, scaled to unit length.

    Attributes:
        shared: float32 (at most 512, n), directions of held-out targets of S.
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

        A target at the mean has no direction. If the alignment predicts next to nothing, it may
        have shrunk targets to the mean: the row is zeros, which are not counted. Else it is NaN,
        which is far from every direction.
        """
        rows = np.asarray(targets, np.float32) - self._centre
        return _directions(rows, self._least, self._none)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well two participants agree on S.

    Attributes:
        threshold: the cosine below which a sample is far.
        usual: share of samples that may be far if both are right: Wilson's upper limit.
        chance: share of samples that are far where targets do not correspond.
    """

    threshold: float
    usual: float
    chance: float

    def count(self, ours: Directions, theirs: Directions) -> tuple[int, int]:
        """Return how many of the r samples count as evidence, and how many of those are far."""
        counted = ours.any(axis=1) & theirs.any(axis=1)
        far = counted & ~(_cosines(ours, theirs) >= self.threshold)
        return int(counted.sum()), int(far.sum())

    def odds(self, far: int, rows: int) -> float:
        """Return the log odds of half of ``rows`` samples being wrong, when ``far`` are far."""
        if self.chance <= self.usual:
            return 0.0
        near = math.log((1 + (1 - self.chance) / (1 - self.usual)) / 2)
        return far * math.log((1 + self.chance / self.usual) / 2) + (rows - far) * near


def agreement(one: Profile, other: Profile) -> Agreement:
    """Return how well two participants agree, from at least 4 samples of S."""
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
    far, square = int((same < threshold).sum()), _DEVIATIONS**2
    margin = _DEVIATIONS * math.sqrt(far * (rows - far) / rows + square / 4)
    usual = max((far + square / 2 + margin) / (rows + square), _LEAST_FAR)
    return Agreement(threshold, usual, float((different < threshold).mean()))


def _directions(rows: NDArray[np.float32], least: float, none: float) -> Directions:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Directions = np.divide(rows, norms, out=np.full_like(rows, none), where=norms > least)
    return unit


def _cosines(left: Directions, right: Directions) -> Cosines:
    cosines: Cosines = np.einsum("rn,rn->r", left, right)
    return cosines


FALSE_ALARMS = 1e-4
"""Highest probability that chance alone accuses any honest participant of a run."""

_ABLE = 1.0  # least log odds that a witness could reach if all its samples were far

Tallies = dict[int | None, dict[str, tuple[int, int]]]
"""Counts of samples, and of far ones, by block (None: all blocks) and partner."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Targets of the same samples by two participants; no sample stands in two comparisons.

    Attributes:
        owner: the participant whose block contains the samples.
        block: that block.
        auditor: the participant that was asked for them beyond its own block.
        unit: the auditor's block whose unit contained them.
        ours: (r, n) the owner's targets.
        theirs: (r, n) the auditor's, in the same order.
    """

    owner: str
    block: int
    auditor: str
    unit: int
    ours: Targets
    theirs: Targets


@dataclass(frozen=True)
class Witness:
    """What one partner's answers say about a participant.

    Attributes:
        samples: how many both answered, without those that count as no evidence.
        far: how many of them are farther apart than is usual.
        usual: share of samples that may be far if both are right.
        chance: share of samples that are far where targets do not correspond.
        odds: natural logarithm of the odds of wrong samples, negative if the two agree.
        most: what ``odds`` would be if all of them were far.
    """

    samples: int
    far: int
    usual: float
    chance: float
    odds: float
    most: float


@dataclass(frozen=True)
class Evidence:
    """Why a participant is rejected; ``dataclasses.asdict`` makes plain JSON values of it.

    Attributes:
        sentence: the reason in words.
        odds: log odds against it, without the half of its witnesses that disagree the most.
        limit: the least log odds for a rejection.
        blocks: blocks that alone are enough evidence; empty if only all together are.
        witnesses: what each partner's answers say, over all blocks.
    """

    sentence: str
    odds: float
    limit: float
    blocks: list[int]
    witnesses: dict[str, Witness]


@dataclass(frozen=True)
class Judged:
    """Who is rejected and why, and sentences on disagreements that cannot be decided."""

    rejected: dict[str, Evidence]
    undecided: list[str]


def judge(expected: Mapping[str, Expected], comparisons: Iterable[Comparison]) -> Judged:
    """Reject participants that the majority of able witnesses contradicts.

    A participant is accused if its witnesses contradict it, in all its blocks together or in one
    of them, even without the half of them that disagree the most, so that a lying minority can
    accuse nobody. It is rejected if at least two witnesses that are not accused themselves suffice
    to accuse it; the others are then judged again without it. The reference is judged like everyone
    else. Neither the order of participants nor that of comparisons matters, and the same evidence
    may be judged repeatedly.

    Comparisons of a participant with itself or with one that ``expected`` lacks are left out. Time
    is O(P S n) for P compared pairs, memory O(K S n); at most 512 samples of S are used.
    """
    trial = _Trial(expected, comparisons)
    rejected: dict[str, Evidence] = {}
    while True:
        left = expected.keys() - rejected.keys()
        accused = {name for name in left if trial.against(name, left)}
        found = {name: trial.against(name, left - accused) for name in sorted(accused)}
        guilty = {name: evidence for name, evidence in found.items() if evidence}
        if not guilty:
            return Judged(rejected, trial.disagreements(left))
        rejected |= guilty


class _Trial:
    """The comparisons of a run, as counts; the block None stands for all blocks."""

    def __init__(self, expected: Mapping[str, Expected], comparisons: Iterable[Comparison]) -> None:
        profiles = {name: Profile(one) for name, one in expected.items()}
        self.pairs: dict[tuple[str, str], Agreement] = {}
        self.tallies: dict[str, Tallies] = {name: defaultdict(dict) for name in expected}
        for one in comparisons:
            if one.owner != one.auditor and {one.owner, one.auditor} <= expected.keys():
                self._count(one, profiles)
        subjects = sum(len(blocks) for blocks in self.tallies.values())
        self.limit = math.log(max(subjects, 1) / FALSE_ALARMS)

    def _count(self, one: Comparison, profiles: Mapping[str, Profile]) -> None:
        pair = _pair(one.owner, one.auditor)
        if pair not in self.pairs:
            self.pairs[pair] = agreement(*(profiles[name] for name in pair))
        ours, theirs = profiles[one.owner].of(one.ours), profiles[one.auditor].of(one.theirs)
        counted, far = self.pairs[pair].count(ours, theirs)
        ends = ((one.owner, one.block, one.auditor), (one.auditor, one.unit, one.owner))
        for name, block, partner in ends:
            for part in (None, block):
                samples, before = self.tallies[name][part].get(partner, (0, 0))
                self.tallies[name][part][partner] = (samples + counted, before + far)

    def witnesses(self, name: str, block: int | None, partners: Set[str]) -> dict[str, Witness]:
        """Return the witness of each of ``partners`` on a participant, in one block or in all."""
        said = sorted(self.tallies[name][block].keys() & partners)
        return {partner: self.witness(name, block, partner) for partner in said}

    def witness(self, name: str, block: int | None, partner: str) -> Witness:
        """Return the witness of a partner on a participant, in one block or in all."""
        samples, far = self.tallies[name][block][partner]
        usual = self.pairs[_pair(name, partner)]
        odds, most = usual.odds(far, samples), usual.odds(samples, samples)
        return Witness(samples, far, usual.usual, usual.chance, odds, most)

    def against(self, name: str, partners: Set[str]) -> Evidence | None:
        """Return the evidence of ``partners`` against a participant, if it is enough."""
        said = {block: self.witnesses(name, block, partners) for block in self.tallies[name]}
        odds = {block: _without_half(found.values()) for block, found in said.items()}
        enough = [block for block in said if odds[block] >= self.limit]
        if not enough:
            return None
        worst = max(enough, key=lambda block: (block is None, odds[block]))
        where = "" if worst is None else f" that were asked for with block {worst}"
        return Evidence(
            sentence=_sentence(name, said[worst]) + where,
            odds=odds[worst],
            limit=self.limit,
            blocks=sorted(block for block in enough if block is not None),
            witnesses=said[None],
        )

    def disagreements(self, names: Set[str]) -> list[str]:
        """Return a sentence on each pair that contradicts each other, in all blocks or in one."""
        said = []
        for one, other in sorted(pair for pair in self.pairs if names >= set(pair)):
            parts = [
                witness
                for name, partner in ((one, other), (other, one))
                for block, said in self.tallies[name].items()
                if partner in said
                and (witness := self.witness(name, block, partner)).odds >= self.limit
            ]
            if parts:
                said.append(
                    f"{_sentence(one, {other: parts[0]})}, and nobody can tell who is right"
                )
        return said


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


def _without_half(witnesses: Iterable[Witness]) -> float:
    """Return the summed log odds, without the half of the witnesses that disagree the most."""
    odds = sorted(one.odds for one in witnesses if one.most >= _ABLE)
    return sum(odds[: len(odds) - len(odds) // 2]) if len(odds) > 1 else -math.inf


def _sentence(name: str, witnesses: Mapping[str, Witness]) -> str:
    """Return in words what witnesses say about a participant."""
    partners = sorted(partner for partner, one in witnesses.items() if one.odds > 0)
    others = f" and {len(partners) - 3} others" if len(partners) > 3 else ""
    far = sum(one.far for one in witnesses.values())
    samples = sum(one.samples for one in witnesses.values())
    return (
        f"{name} disagrees with {', '.join(partners[:3])}{others} on {far} of {samples} samples, "
        f"where at most {max(one.usual for one in witnesses.values()):.0%} is usual"
    )
