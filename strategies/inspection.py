"""What becomes of a unit: looked at, then its block stored, and apart what is for the audit."""

from collections import Counter
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl.config.schema import Config
from coopt_fl.core.errors import OutputError, ParticipantError
from coopt_fl.core.runtime import compute
from coopt_fl.core.seeding import derive_seed
from coopt_fl.federation.protocol import HalfArray, IntArray
from coopt_fl.federation.records import Features, Records, audit_name
from coopt_fl.optimized.block import Block
from coopt_fl.policies.audit import Expected, inconsistent, odd_spread, spread
from coopt_fl.policies.evidence import Comparison, Judgement, judge
from coopt_fl.privacy import Guard
from coopt_fl.targets import heldout_targets
from coopt_fl.targets.alignment import r2_score

FEWEST_SKIPPED = 5
"""Samples that only one cannot read, from which on that is no accident."""


class Answer(NamedTuple):
    """What the owners of a block and of a unit said of one audited sample; None: it was skipped.

    Attributes:
        home: the block in which the sample stands.
        unit: the block with which it was asked for once more.
        ours: float16 (n,) by the owner of ``home``.
        theirs: float16 (n,) by the owner of ``unit``.
    """

    home: int
    unit: int
    ours: HalfArray | None
    theirs: HalfArray | None


class Inspection:
    """Compares targets with what the shared set says of their contributor, and of each pair."""

    def __init__(self, config: Config, records: Records) -> None:
        self.config, self.records = config, records
        self._expected: dict[str, Expected] = {}
        self._shared: dict[str, tuple[IntArray, Features]] = {}

    @cached_property
    def _audited(self) -> IntArray:
        """The ids that are asked for with another block, too."""
        plan = self.records.plan
        parts = [plan.audit_ids(index) for index in range(len(plan.blocks))]
        return np.unique(np.concatenate(parts))

    @cached_property
    def _projected(self) -> set[int]:
        """The blocks on which a projection was fitted, whoever optimizes them now."""
        return {index for blocks in self.records.projections() for index in blocks}

    def inspect(self, name: str, index: int, unit: Block) -> None:
        """Look at the targets of one unit by themselves.

        Raises:
            ParticipantError: they cannot be what the participant was asked for.
        """
        if self.config.privacy.clip is not None:
            return  # clipping and noise change what could be compared
        problem = self._contradiction(name, unit)
        if not problem and index not in self._projected:
            problem = odd_spread(unit.targets, self.expected(name))
        if problem:
            raise ParticipantError(f"block {index}: {problem}")

    def store(self, index: int, unit: Block) -> None:
        """Store the block of ``unit``, last, and the rows that can be compared."""
        block = self.records.plan.blocks[index]
        mine = np.isin(unit.ids, block)
        compared = ~mine | _among(unit.ids, self._audited)
        self.records.state.save_arrays(
            audit_name(index), ids=unit.ids[compared], targets=unit.targets[compared]
        )
        share = float(mine.sum()) / max(len(unit.ids), 1)
        skipped = unit.skipped[np.isin(unit.skipped, block)]
        own = Block(
            unit.ids[mine],
            unit.targets[mine],
            unit.participants[mine],
            skipped,
            unit.seconds * share,
        )
        self.records.state.save_block(index, own)

    def judge(self, comparisons: list[Comparison]) -> Judgement:
        """Let the majority decide on what two contributors have answered."""
        names = {one.owner for one in comparisons} | {one.auditor for one in comparisons}
        return judge({name: self.expected(name) for name in names}, comparisons)

    def summary(self, judgement: Judgement, comparisons: list[Comparison]) -> dict[str, Any]:
        """Return what the provenance says of the audit."""
        return {
            "fraction": self.config.audit.fraction,
            "samples": sum(len(one.ours) for one in comparisons if one.owner != one.auditor),
            "rejected": sorted(self.records.rejected | judgement.rejected),
            "undecided": list(judgement.undecided),
        }

    def expected(self, name: str) -> Expected:
        """Return what the targets of a participant have to be like."""
        if name not in self._expected:
            features, targets = self.records.aligning(name)
            alignment = self.records.alignment(name)
            fitted = heldout = alignment.apply(torch.from_numpy(features)).numpy()
            if name != self.records.reference:  # its projection was not fitted on them
                seed = derive_seed(self.config.seed, "align", name)
                with compute(self.config.runtime.threads):
                    heldout = heldout_targets(features, targets, self.config.targets.solver, seed)
            r2 = r2_score(np.asarray(targets, np.float64), np.asarray(heldout, np.float64))
            heldout = self._released(name, heldout)
            self._expected[name] = Expected(fitted, heldout, r2)
        return self._expected[name]

    def _released(self, name: str, targets: Features) -> Features:
        """Return targets as they would come: with privacy, clipped and with noise of their own."""
        privacy = self.config.privacy
        if privacy.clip is None:
            return targets
        guard = Guard(privacy.clip, privacy.noise_multiplier, b"")
        return guard.release(targets, np.arange(len(targets)), "expected", name)

    def _contradiction(self, name: str, unit: Block) -> str | None:
        """Compare the targets of shared samples with the features that came of them before."""
        if name not in self._shared:
            ids, features = self.records.features([name])
            alignment = self.records.alignment(name)
            wanted = alignment.apply(torch.from_numpy(features[name])).numpy()
            self._shared[name] = ids, wanted
        ids, wanted = self._shared[name]
        if _among(unit.skipped, ids).any():
            return "it skips shared samples of which it had features"
        known = _among(unit.ids, ids)
        if not known.any():
            return None
        problem = inconsistent(
            unit.targets[known],
            wanted[np.searchsorted(ids, unit.ids[known])],
            spread(self.expected(name).fitted),
            self.config.runtime.precision,
        )
        return problem and f"of the shared samples, {problem}"

    def turncoats(self, comparisons: list[Comparison]) -> dict[str, str]:
        """Return who answered twice to the same ids, and not the same, in words."""
        if self.config.privacy.clip is not None:
            return {}  # a row that differs in its last bit has other noise
        found: dict[str, str] = {}
        for one in comparisons:
            if one.owner == one.auditor:
                scale = spread(self.expected(one.owner).fitted)
                precision = self.config.runtime.precision
                if problem := inconsistent(one.theirs, one.ours, scale, precision):
                    where = f"of samples asked for twice, with blocks {one.block} and {one.unit}"
                    found.setdefault(one.owner, f"{where}, {problem}")
        return found

    def answers(self) -> list[Answer]:
        """Return what was said of every audited sample, by block and unit."""
        plan, homes = self.records.plan, self._homes()
        stored = [self._stored(index) for index in range(len(plan.blocks))]
        return [
            Answer(homes[id], unit, _row(stored[homes[id]], id), _row(stored[unit], id))
            for unit in range(len(plan.owners))
            for id in plan.audit_ids(unit).tolist()
        ]

    def idlers(self, answers: list[Answer]) -> dict[str, str]:
        """Return who skips samples that others can read, and how many, in words."""
        plan = self.records.plan
        skipped, asked = Counter[str](), Counter[str]()
        for one in answers:
            owner, auditor = plan.owners[one.home], plan.owners[one.unit]
            if owner != auditor and one.theirs is not None:
                asked[plan.contributors[owner]] += 1
                skipped[plan.contributors[owner]] += one.ours is None
        return {
            name: f"it skips {count} of {asked[name]} audited samples that others can read"
            for name, count in skipped.items()
            if count >= FEWEST_SKIPPED and count > asked[name] / 4
        }

    def comparisons(self, answers: list[Answer]) -> list[Comparison]:
        """Return what two have answered, by block and unit.

        Who owns both the block and the unit was asked twice.
        """
        plan = self.records.plan
        found: dict[tuple[int, int], list[tuple[HalfArray, HalfArray]]] = {}
        for one in answers:
            if one.ours is not None and one.theirs is not None:
                found.setdefault((one.home, one.unit), []).append((one.ours, one.theirs))
        names = plan.contributors
        return [
            Comparison(
                owner=names[plan.owners[home]],
                block=home,
                auditor=names[plan.owners[unit]],
                unit=unit,
                ours=np.stack([ours for ours, _ in rows]),
                theirs=np.stack([theirs for _, theirs in rows]),
            )
            for (home, unit), rows in found.items()
        ]

    def _stored(self, index: int) -> tuple[IntArray, HalfArray]:
        arrays = self.records.state.arrays(audit_name(index))
        if arrays is None:
            raise OutputError(f"the audit rows of block {index} are missing; give another --out")
        return arrays["ids"], arrays["targets"]

    def _homes(self) -> dict[int, int]:
        """Return the block in which each audited id stands."""
        blocks = self.records.plan.blocks
        inside = (ids[_among(ids, self._audited)].tolist() for ids in blocks)
        return {id: index for index, ids in enumerate(inside) for id in ids}


def _among(ids: IntArray, known: IntArray) -> NDArray[np.bool_]:
    """Return which of ``ids`` are in ``known``, which ascends and may be far longer."""
    if not len(known):
        return np.zeros(len(ids), bool)
    found: NDArray[np.bool_] = known[np.searchsorted(known, ids).clip(max=len(known) - 1)] == ids
    return found


def _row(stored: tuple[IntArray, HalfArray], id: int) -> HalfArray | None:
    """Return the target of ``id``, or None where it was skipped."""
    place = int(np.searchsorted(stored[0], id))
    there = place < len(stored[0]) and stored[0][place] == id
    return stored[1][place] if there else None
