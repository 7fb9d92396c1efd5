"""The plan: who optimizes which block, made before any work and never changed but for a fault."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.optimized.state import RunState

ASSIGNED = "assigned"


@dataclass(frozen=True)
class Plan:
    """The blocks, their owners, and the shared set.

    Attributes:
        contributors: names, in the order of their index in the dataset.
        blocks: ids (int64, ascending) of each block.
        owners: index into ``contributors`` for each block.
        shared: ids of the shared set S, ascending.
    """

    contributors: list[str]
    blocks: list[NDArray[np.int64]]
    owners: list[int]
    shared: NDArray[np.int64]

    def blocks_of(self, name: str) -> list[int]:
        """Return the indexes of the blocks that ``name`` optimizes."""
        mine = self.contributors.index(name)
        return [index for index, owner in enumerate(self.owners) if owner == mine]

    def shard(self, name: str) -> NDArray[np.int64]:
        """Return the ids that ``name`` optimizes, in block order."""
        mine = [self.blocks[index] for index in self.blocks_of(name)]
        return np.concatenate(mine) if mine else np.empty(0, np.int64)

    def rows_of(self, name: str) -> int:
        """Return how many samples ``name`` optimizes."""
        return sum(len(self.blocks[index]) for index in self.blocks_of(name))


def save_plan(state: RunState, plan: Plan) -> None:
    """Store the plan: the ids as arrays, who does what as JSON, the latter last."""
    state.save_arrays(
        "order",
        ids=np.concatenate(plan.blocks),
        sizes=np.array([len(block) for block in plan.blocks], np.int64),
        shared=plan.shared,
    )
    record: dict[str, Any] = {
        "contributors": plan.contributors,
        "blocks": [[[plan.contributors[owner], ASSIGNED]] for owner in plan.owners],
        "changes": [],
    }
    state.save_record("plan", record)


def read_plan(state: RunState) -> Plan | None:
    """Return the stored plan, or None."""
    record, order = state.record("plan"), state.arrays("order")
    if record is None or order is None:
        return None
    names: list[str] = record["contributors"]
    return Plan(
        contributors=names,
        blocks=np.split(order["ids"], np.cumsum(order["sizes"])[:-1]),
        owners=[names.index(entry[0][0]) for entry in record["blocks"]],
        shared=order["shared"],
    )
