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
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Targets = NDArray[np.floating]

Directions = NDArray[np.float32]
Cosines = NDArray[np.float32]

PREDICTS = 0.1
"""R2 from which on held-out targets are as wide as those of other samples."""

_ROWS_OF_S = 512  # what pairs are compared on, at most
_LEAST_FAR = 0.02  # share of far samples that is always reckoned with: below 5 no one is accused
_DEVIATIONS = 3.0  # by which the share on S may be too low by chance
_TINY = 0.01  # of the spread: a target so close to the mean has no direction


@dataclass(frozen=True, eq=False)
class Expected:
    """What a participant's targets have to be like.

    With privacy noise all three are to be made of features as they came, and ``heldout`` is to
    get the noise of targets; ``fitted`` then says nothing about single rows.

    Attributes:
        fitted: (S, n) what its alignment makes of its features of the shared set.
        heldout: (S, n) what alignments fitted without the row make of them
            (:class:`coopt_fl.targets.HeldOut`); of the reference's projection, ``fitted``.
        r2: Share of the variance of S_Y* that ``heldout`` predicts; of the reference 1.
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


@dataclass(frozen=True, slots=True)
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


def agreement(one: Profile, other: Profile) -> Agreement:
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
"""How often, at most, chance alone accuses an honest participant of a run."""

_ABLE = 1.0  # log odds that a partner's samples give if all are far; below, it is no witness

Tallies = dict[int | None, dict[str, tuple[int, int]]]  # by block and partner: samples, far ones


@dataclass(frozen=True, eq=False)
class Comparison:
    """Targets of the same samples by two participants; no sample stands in two comparisons.

    Attributes:
        owner: whose block the samples stand in.
        block: that block.
        auditor: who was asked for them beyond its own block.
        unit: the auditor's block with which it was asked for them.
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
        samples: how many both answered, but for targets at the mean where that says nothing.
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
    """Why a participant is rejected; ``dataclasses.asdict`` of it can be written as JSON.

    Attributes:
        sentence: for people.
        odds: log odds against it, without the half of its witnesses that disagree the most.
        limit: what they had to reach.
        blocks: those whose payload alone is enough; none if only all of them together are.
        witnesses: by partner, over all blocks.
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
    """Return who is contradicted by the majority of those who can tell.

    A participant is accused if its witnesses contradict it, in all its blocks together or in one
    of them, even without the half of them that disagree the most: a minority that lies accuses
    nobody. It is rejected if at least two who are not accused themselves say so; the others are
    then judged again without it. The reference is judged like everyone else. Neither the order of
    participants nor that of comparisons matters, and the same evidence may be judged repeatedly.

    Comparisons of a participant with itself or with one that ``expected`` lacks are left out. Time
    is O(pairs S n), of pairs that met, and memory O(participants S n), where S counts at most 512.
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
    """All that was answered twice, counted once; the block None stands for all of them."""

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
        told, far = self.pairs[pair].count(ours, theirs)
        ends = ((one.owner, one.block, one.auditor), (one.auditor, one.unit, one.owner))
        for name, block, partner in ends:
            for part in (None, block):
                samples, before = self.tallies[name][part].get(partner, (0, 0))
                self.tallies[name][part][partner] = (samples + told, before + far)

    def witnesses(self, name: str, block: int | None, partners: Set[str]) -> dict[str, Witness]:
        """Return what each of ``partners`` says about a participant, in one block or in all."""
        said = sorted(self.tallies[name][block].keys() & partners)
        return {partner: self.witness(name, block, partner) for partner in said}

    def witness(self, name: str, block: int | None, partner: str) -> Witness:
        """Return what a partner says about a participant, in one block or in all."""
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
        """Return a sentence on each two who contradict each other, in all blocks or in one."""
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
    """Return the log odds without the half of the witnesses that disagree the most."""
    odds = sorted(one.odds for one in witnesses if one.most >= _ABLE)
    return sum(odds[: len(odds) - len(odds) // 2]) if len(odds) > 1 else -math.inf


def _sentence(name: str, witnesses: Mapping[str, Witness]) -> str:
    """Say in words what witnesses say about a participant."""
    partners = sorted(partner for partner, one in witnesses.items() if one.odds > 0)
    others = f" and {len(partners) - 3} others" if len(partners) > 3 else ""
    far = sum(one.far for one in witnesses.values())
    samples = sum(one.samples for one in witnesses.values())
    return (
        f"{name} disagrees with {', '.join(partners[:3])}{others} on {far} of {samples} samples, "
        f"where at most {max(one.usual for one in witnesses.values()):.0%} is usual"
    )
