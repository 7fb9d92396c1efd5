"""The plan: who optimizes which block.

It is made before any work, but an assignment by region waits for the alignments. After that only
faults change it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate, chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import Config
from coopt_fl.core.errors import OutputError
from coopt_fl.core.typed import LATER
from coopt_fl.data.blocks import among, make_blocks, make_units, shared_set
from coopt_fl.federation.groups import Groups
from coopt_fl.federation.state import AGAIN, RunState
from coopt_fl.policies.assignment import AssignmentPolicy, Member, assigned

ASSIGNED = "assigned"

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Size:
    """The sizes of a block, of its audit, and of the shared set.

    Attributes:
        block_rows: samples in a block.
        audit: samples of other blocks in a unit, as a fraction of the block.
        shared: samples in the shared set S.
    """

    block_rows: int
    audit: float
    shared: int

    @classmethod
    def of(cls, config: Config) -> "Size":
        """Return the sizes that a configuration sets."""
        return cls(config.optimize.block_rows, config.audit.fraction, config.shared.size)

    def cut(
        self, ids: Ids, seed: int, groups: Groups | None = None
    ) -> tuple[list[Ids], list[Ids], Ids]:
        """Return the blocks, the units and the shared set of a run.

        Args:
            ids: of all samples, ascending.
            seed: of the run.
            groups: groups of the ids that no block mixes.

        Raises:
            DataError: the shared set is larger than the source.
        """
        each = [ids] if groups is None else groups.ids.values()
        blocks = [make_blocks(some, self.block_rows, seed) for some in each]
        audited = blocks if groups and groups.owned else [[*chain(*blocks)]]
        units = [make_units(some, self.audit, seed) for some in audited]
        return [*chain(*blocks)], [*chain(*units)], shared_set(ids, self.shared, seed)

    def group_of(self, groups: Groups) -> list[str]:
        """Return the name of the group of each block that :meth:`cut` makes."""
        return [
            name
            for name, some in groups.ids.items()
            for _ in range(-(-len(some) // self.block_rows))
        ]

    def owners(self, groups: Groups | None) -> list[str]:
        """Return the owner of each block that :meth:`cut` makes, if groups are owned; else []."""
        return self.group_of(groups) if groups and groups.owned else []


@dataclass(frozen=True)
class Change:
    """Blocks that went from one participant to others, and why.

    Attributes:
        origin: the participant that had them.
        blocks: their indexes.
        owners: the new owner of each.
        reason: one sentence.
        evidence: the numbers behind a rejection; empty for a loss.
        rejected: whether ``origin`` was rejected, not lost.
    """

    origin: str
    blocks: list[int]
    owners: list[str]
    reason: str
    evidence: dict[str, Any]
    rejected: bool = False


@dataclass(frozen=True)
class Plan:
    """The blocks, their units and owners, and the shared set.

    Attributes:
        contributors: names, in the order of their index in the dataset; later ones are appended.
        blocks: ids (int64, ascending) of each block.
        units: ids (int64, ascending) requested with each block: its own, and some to audit.
        owners: index into ``contributors`` for each block; empty until blocks are assigned.
        shared: ids of the shared set S, ascending.
        changes: what was changed, in order.
        regions: the region of each block, if the assignment needs it; else empty.
    """

    contributors: list[str]
    blocks: list[Ids]
    units: list[Ids]
    owners: list[int]
    shared: Ids
    changes: list[Change] = field(default_factory=list)
    regions: list[str] = field(default_factory=list)

    @classmethod
    def make(
        cls,
        ids: Ids,
        size: "Size",
        seed: int,
        members: Sequence[Member],
        assign: AssignmentPolicy,
        groups: Groups | None = None,
    ) -> "Plan":
        """Return the plan of a new run; equal arguments give equal plans.

        If groups are owned, ``assign`` is not called. If they are regions, nothing has owners yet.

        Raises:
            DataError: the shared set is larger than the source.
            ConfigError: see :func:`coopt_fl.policies.assignment.assigned`.
        """
        blocks, units, shared = size.cut(ids, seed, groups)
        plan = cls([member.name for member in members], blocks, units, [], shared)
        if groups is None:
            return plan.with_owners(assigned(assign, range(len(blocks)), members))
        if groups.owned:
            return plan.with_owners(size.owners(groups))
        return replace(plan, regions=size.group_of(groups))

    def with_owners(self, owners: Sequence[str]) -> "Plan":
        """Return the plan with an owner, one of the contributors, for each block."""
        return replace(self, owners=[self.contributors.index(owner) for owner in owners])

    def blocks_of(self, name: str) -> list[int]:
        """Return the indexes of the blocks that ``name`` optimizes."""
        if name not in self.contributors:
            return []
        mine = self.contributors.index(name)
        return [index for index, owner in enumerate(self.owners) if owner == mine]

    def shards(self) -> dict[str, list[int]]:
        """Return the indexes of the blocks that each contributor optimizes."""
        found: dict[str, list[int]] = {name: [] for name in self.contributors}
        for index, owner in enumerate(self.owners):
            found[self.contributors[owner]].append(index)
        return found

    def audit_ids(self, index: int) -> Ids:
        """Return the ids in the unit of block ``index`` that are not in the block, ascending."""
        return np.setdiff1d(self.units[index], self.blocks[index], assume_unique=True)

    def numbered_regions(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the number of the region of each block, and that of each shared sample (S,)."""
        of_block = np.unique(self.regions, return_inverse=True)[1]
        of_shared = np.empty(len(self.shared), np.intp)
        for block, number in zip(self.blocks, of_block.tolist(), strict=True):
            of_shared[among(self.shared, block)] = number
        return of_block, of_shared

    def projected(self, name: str, rows: int) -> list[int]:
        """Return the blocks of ``name`` on which it fits a projection, enough for ``rows``.

        Their whole units are used, as in later requests for targets, so that nothing tells the
        participant which rows are for the audit.
        """
        mine = self.blocks_of(name)
        before = accumulate((len(self.units[index]) for index in mine), initial=0)
        return [index for index, total in zip(mine, before, strict=False) if total < rows]

    def projected_ids(self, blocks: Sequence[int], rows: int) -> Ids:
        """Return the first ``rows`` ids of these blocks' units; without blocks, the shared set."""
        if not blocks:
            return self.shared
        return np.concatenate([self.units[index] for index in blocks])[:rows]

    def out(self) -> set[str]:
        """Return the contributors that lost their blocks and have taken over none since."""
        left: set[str] = set()
        for change in self.changes:
            left = (left | {change.origin}) - set(change.owners)
        return left

    def moved(self, change: Change) -> "Plan":
        """Return the plan after ``change``; new owners become contributors."""
        fresh = [name for name in dict.fromkeys(change.owners) if name not in self.contributors]
        names, owners = self.contributors + fresh, list(self.owners)
        for block, name in zip(change.blocks, change.owners, strict=True):
            owners[block] = names.index(name)
        return replace(self, contributors=names, owners=owners, changes=[*self.changes, change])


@dataclass(frozen=True)
class _Record:
    """The stored assignment: the owners of each block, with the role of each."""

    contributors: list[str]
    blocks: list[list[tuple[str, str]]]
    changes: list[Change]
    regions: list[str] = field(default_factory=list, metadata={LATER: True})


def require_parts(state: RunState, config: Config, ids: Ids, groups: Groups) -> None:
    """Raise OutputError where a stored plan has other blocks than the parts ``groups`` give."""
    plan = read_plan(state)
    if plan is None:
        return
    blocks, _, _ = Size.of(config).cut(ids, config.seed, groups)
    same = len(blocks) == len(plan.blocks) and all(map(np.array_equal, blocks, plan.blocks))
    if not same:
        raise OutputError(
            f"{state.out} was begun when assignment.partition={config.assignment.partition} gave "
            f"other samples to the participants: the labels or column it uses have changed; {AGAIN}"
        )


def save_plan(state: RunState, plan: Plan) -> None:
    """Store a new plan: the ids as arrays, then the assignment as JSON."""
    state.save_arrays(
        "order",
        ids=np.concatenate(plan.blocks),
        sizes=[len(ids) for ids in plan.blocks],
        units=np.concatenate(plan.units),
        unit_sizes=[len(ids) for ids in plan.units],
        shared=plan.shared,
    )
    save_changes(state, plan)


def save_changes(state: RunState, plan: Plan) -> None:
    """Store the assignment and its changes; the stored ids stay as they are."""
    owners = [[(plan.contributors[owner], ASSIGNED)] for owner in plan.owners]
    state.save_record(
        "plan", asdict(_Record(plan.contributors, owners, plan.changes, plan.regions))
    )


def read_plan(state: RunState) -> Plan | None:
    """Return the stored plan, or None.

    Raises:
        OutputError: half of it is missing.
    """
    record, order = state.record("plan", _Record), state.arrays("order")
    if record is None:
        return None
    if order is None:
        raise OutputError(
            f"{state.folder}/order.npz is missing, and the run cannot go on without it; {AGAIN}"
        )
    names = record.contributors
    return Plan(
        contributors=names,
        blocks=np.split(order["ids"], np.cumsum(order["sizes"])[:-1]),
        units=np.split(order["units"], np.cumsum(order["unit_sizes"])[:-1]),
        owners=[names.index(entry[0][0]) for entry in record.blocks],
        shared=order["shared"],
        changes=record.changes,
        regions=record.regions,
    )
