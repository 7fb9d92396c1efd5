"""The plan: who optimizes which block. It is made before any work; only faults change it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate, chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import Config
from coopt_fl.core.errors import OutputError
from coopt_fl.data.blocks import make_blocks, make_units, shared_set
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
        self, ids: Ids, seed: int, parts: Mapping[str, Ids] | None = None
    ) -> tuple[list[Ids], list[Ids], Ids]:
        """Return the blocks, the units and the shared set of a run.

        Args:
            ids: of all samples, ascending.
            seed: of the run.
            parts: the ids of each participant; no block or unit then mixes those of two.

        Raises:
            DataError: the shared set is larger than the source.
        """
        each = [ids] if parts is None else [*parts.values()]
        blocks = [make_blocks(some, self.block_rows, seed) for some in each]
        units = [make_units(some, self.audit, seed) for some in blocks]
        return [*chain(*blocks)], [*chain(*units)], shared_set(ids, self.shared, seed)

    def owners(self, parts: Mapping[str, Ids]) -> list[str]:
        """Return the owner of each block that :meth:`cut` makes of ``parts``."""
        return [
            name for name, part in parts.items() for _ in range(-(-len(part) // self.block_rows))
        ]


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
        owners: index into ``contributors`` for each block.
        shared: ids of the shared set S, ascending.
        changes: what was changed, in order.
    """

    contributors: list[str]
    blocks: list[Ids]
    units: list[Ids]
    owners: list[int]
    shared: Ids
    changes: list[Change] = field(default_factory=list)

    @classmethod
    def make(
        cls,
        ids: Ids,
        size: "Size",
        seed: int,
        members: Sequence[Member],
        assign: AssignmentPolicy,
        parts: Mapping[str, Ids] | None = None,
    ) -> "Plan":
        """Return the plan of a new run; equal arguments give equal plans.

        With ``parts``, each participant owns the blocks of its ids, and ``assign`` is not called.

        Raises:
            DataError: the shared set is larger than the source.
            ConfigError: see :func:`coopt_fl.policies.assignment.assigned`.
        """
        blocks, units, shared = size.cut(ids, seed, parts)
        names = [member.name for member in members]
        owners = size.owners(parts) if parts else assigned(assign, range(len(blocks)), members)
        return cls(names, blocks, units, [names.index(owner) for owner in owners], shared)

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


def require_parts(state: RunState, config: Config, ids: Ids, parts: Mapping[str, Ids]) -> None:
    """Raise OutputError where a stored plan gives the participants other samples than ``parts``."""
    plan = read_plan(state)
    if plan is None:
        return
    blocks, _, _ = Size.of(config).cut(ids, config.seed, parts)
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
    state.save_record("plan", asdict(_Record(plan.contributors, owners, plan.changes)))


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
    )
