"""A small run, made through the functions that the platform uses."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import Config, DataConfig, TargetsConfig
from coopt_fl.data import open_source
from coopt_fl.data.blocks import make_blocks
from coopt_fl.federation.holding import open_state
from coopt_fl.federation.plan import Plan, save_plan
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.block import Block
from coopt_fl.optimized.provenance import Contributor, Provenance, draft
from coopt_fl.optimized.write import publish

DIM, ROWS, BLOCK_ROWS = 6, 50, 8
SKIPPED = (11, 30)
DATA = DataConfig(source="synthetic", limit=ROWS)
NAMES = ["ann", "bob"]


def target(ids: NDArray[np.int64], dim: int = DIM) -> NDArray[np.float16]:
    """Return the planted target of each id, a known function of the id."""
    return (ids[:, None] + np.arange(dim) / 64 - 8).astype(np.float16)


def config(dim: int = DIM) -> Config:
    return Config(data=DATA, targets=TargetsConfig(dim=dim))


def make_plan(rows: int = ROWS, block_rows: int = BLOCK_ROWS) -> Plan:
    blocks = make_blocks(np.arange(rows), block_rows, seed=0)
    owners = [index % len(NAMES) for index in range(len(blocks))]
    return Plan(NAMES, blocks, blocks, owners, shared=np.arange(4))


def make_block(plan: Plan, index: int, skipped: tuple[int, ...] = (), dim: int = DIM) -> Block:
    lost = np.intersect1d(plan.blocks[index], np.array(skipped, np.int64))
    ids = np.setdiff1d(plan.blocks[index], lost)
    owner = np.full(len(ids), plan.owners[index], np.int16)
    return Block(ids, target(ids, dim), owner, lost, seconds=0.5)


def contributors() -> list[Contributor]:
    return [Contributor(name, f"trivial:{name}", "a" * 64, "b" * 64, -1.5, 0.25) for name in NAMES]


def make_draft(rows: int = ROWS, dim: int = DIM) -> Provenance:
    fingerprint = open_source(DATA).fingerprint
    source = {"name": "synthetic", "fingerprint": fingerprint, "rows": rows}
    return draft(
        config=config(dim),
        source=source,
        contributors=contributors(),
        reference="ann",
        plan_changes=[],
        audit={},
    )


def fill(state: RunState, plan: Plan, skipped: tuple[int, ...] = (), dim: int = DIM) -> None:
    save_plan(state, plan)
    for index in range(len(plan.blocks)):
        state.save_block(index, make_block(plan, index, skipped, dim))


def finish(out: Path, skipped: tuple[int, ...] = SKIPPED, plan: Plan | None = None) -> Provenance:
    """Make a finished run in ``out``."""
    plan = plan or make_plan()
    with open_state(out, "key", asdict(config())) as state:
        fill(state, plan, skipped)
        return go(state, plan)


def edit(dataset: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the provenance on disk."""
    path = dataset / "provenance.json"
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def go(
    state: RunState, plan: Plan | None = None, dim: int = DIM, progress: Any = lambda rows: None
) -> Provenance:
    """Publish a run with all blocks."""
    sizes = [len(ids) for ids in (plan or make_plan()).blocks]
    return publish(state.dataset, make_draft(sum(sizes), dim), sizes, state.block, progress)
