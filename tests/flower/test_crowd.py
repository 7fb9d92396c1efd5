"""Many participants: messages in flight, memory, and the answers that the audit gets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

import coopt_fl
from coopt_fl.config.load import from_tree
from coopt_fl.config.schema import Config
from coopt_fl.data.blocks import make_blocks, make_units
from coopt_fl.federation import protocol
from coopt_fl.federation.plan import Plan
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.block import Block
from coopt_fl.policies.audit import Answer, Audit, Judgement
from coopt_fl.policies.evidence import Expected
from coopt_fl.strategies import exchange, inspection
from coopt_fl.strategies.answers import answers
from tests.flower.grid import FakeGrid, run_platform, tiny

MOST = 25_000
"""Limit of bytes in flight: three replies with features of the shared set."""


def many(count: int) -> Config:
    people = [{"name": f"p{k}", "prior": f"trivial:{20 + k % 3}"} for k in range(count)]
    return from_tree(
        {
            "data": {"source": "synthetic", "limit": 240},
            "participants": people,
            "shared": {"size": 64},
            "targets": {"dim": 16},
            "optimize": {"block_rows": 4, "batch_size": 8},
        },
        [],
        "many",
    )


def weight(message: Message) -> int:
    """Return the bytes of the arrays' numbers in a message, without their type headers."""
    records = message.content.array_records.values()
    return sum(array.numpy().nbytes for record in records for array in record.values())


@dataclass
class Weighing(FakeGrid):
    """Records the number of messages in flight, and the bytes of their arrays."""

    under_way: list[tuple[str, int, int]] = field(default_factory=list)

    def push_messages(self, messages: list[Message]) -> list[str]:
        keys = super().push_messages(messages)
        requests = {one.metadata.message_id: one for one in self.sent}
        pairs = [(requests[key], reply) for key, reply in self.waiting.items()]
        size = sum(weight(one) for pair in pairs for one in pair)
        self.under_way.append((messages[0].metadata.message_type, len(pairs), size))
        return keys


@pytest.mark.parametrize("count", [2, 20])
def test_bytes_under_way_are_bounded_and_used_however_many_take_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(exchange, "IN_FLIGHT_BYTES", MOST)
    grid = Weighing(count)
    run_platform(many(count), tmp_path, grid)
    assert max(size for _, _, size in grid.under_way) <= 1.05 * MOST, "maps have a bias, too"
    at_once = [pairs for kind, pairs, _ in grid.under_way if kind == protocol.OPTIMIZE]
    assert count == 2 or max(at_once) >= 4
    asked = [m for m in grid.sent if m.metadata.message_type == protocol.OPTIMIZE]
    chunks = [protocol.decode(protocol.Optimize, one.content) for one in asked]
    assert max(len(chunk.blocks) for chunk in chunks) > 1, "several blocks, not mostly the map"
    assert {m.metadata.dst_node_id for m in asked} == {100 + k for k in range(count)}


def test_what_memory_does_not_hold_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_platform(tiny(), tmp_path / "kept")
    monkeypatch.setattr(inspection, "KEPT_BYTES", 1)
    run_platform(tiny(), tmp_path / "read")
    audits = [
        json.loads((tmp_path / one / "state/audit.json").read_text()) for one in ("kept", "read")
    ]
    assert audits[0] == audits[1]
    assert coopt_fl.load(tmp_path / "kept").digest == coopt_fl.load(tmp_path / "read").digest


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_answers_in_a_file_are_those_that_were_stored(tmp_path: Path, fraction: float) -> None:
    """The file is compared with a dictionary of all rows; either side skipped some samples."""
    rng, state = np.random.default_rng(0), RunState(tmp_path)
    ids = np.arange(0, 210, 2)
    blocks = make_blocks(ids, 10, 0)
    units = make_units(blocks, fraction, 0)
    plan = Plan(["ann", "bob", "eve"], blocks, units, [k % 3 for k in range(len(blocks))], ids[:9])
    audited = np.unique(np.concatenate([plan.audit_ids(k) for k in range(len(blocks))]))
    said: list[dict[int, Any]] = []
    for index, unit in enumerate(units):
        read = unit[rng.random(len(unit)) < 0.8]
        targets = rng.standard_normal((len(read), 4)).astype(np.float16)
        skipped = np.setdiff1d(unit, read)
        block = Block(read, targets, np.zeros(len(read), np.int16), skipped, 1.0)
        state.save_unit(index, block, blocks[index], audited)
        said.append(dict(zip(read.tolist(), targets.tolist(), strict=True)))
    names = plan.contributors
    home = {int(id): index for index, block in enumerate(blocks) for id in block}
    expected = [
        (names[home[id] % 3], home[id], names[unit % 3], unit,
         said[home[id]].get(id), said[unit].get(id))
        for unit in range(len(units))
        for id in plan.audit_ids(unit).tolist()
    ]  # fmt: skip
    with answers(plan, audited, state, 4) as found:
        plain = [(*one[:4], *(None if y is None else y.tolist() for y in one[4:])) for one in found]
        assert plain == expected
        assert len(found[1:3]) == min(2, len(found))
        assert bool(found) == (fraction > 0)
    assert not list(state.folder.glob("*tmp*"))


def test_a_run_that_ended_in_its_audit_judges_the_same_answers(tmp_path: Path) -> None:
    seen: list[list[tuple[Any, ...]]] = []

    class Dies(Audit):
        def judge(self, expected: Mapping[str, Expected], answers: Sequence[Answer]) -> Judgement:
            seen.append([(*one[:4], *(y.tolist() for y in one[4:])) for one in answers])
            if len(seen) == 1:
                raise KeyboardInterrupt
            return super().judge(expected, answers)

    config = tiny(**{"audit.fraction": 0.2})
    with pytest.raises(KeyboardInterrupt):
        run_platform(config, tmp_path, audit=Dies())
    grid = run_platform(config, tmp_path, audit=Dies())
    assert seen[0] == seen[1] != []
    assert set(grid.kinds()) == {protocol.DESCRIBE}
    assert coopt_fl.load(tmp_path).digest
