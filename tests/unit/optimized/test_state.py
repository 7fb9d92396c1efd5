"""The state of a run: read back as stored, refused if damaged or of another run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coopt_fl.core.errors import OutputError
from coopt_fl.federation.holding import open_state
from coopt_fl.federation.plan import Change, read_plan, save_changes, save_plan
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.block import Block
from tests.unit.optimized.make import make_block, make_plan

CONFIG = {"seed": 0, "data": {"source": "digits"}, "participants": [{"name": "ann"}]}


@pytest.fixture
def state(tmp_path: Path) -> RunState:
    with open_state(tmp_path / "out", "key", CONFIG) as state:
        return state


def test_records_and_arrays_come_back(state: RunState) -> None:
    assert state.record("none", str) is None and state.arrays("none") is None
    state.save_record("some", {"a": [1, None, "é"]})
    assert state.record("some", dict[str, list[Any]]) == {"a": [1, None, "é"]}
    planted = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "y": np.array(2.5)}
    state.save_arrays("below/some", **planted)
    stored = RunState(state.out).arrays("below/some")
    assert stored is not None and set(stored) == {"x", "y"}
    for name, array in planted.items():
        assert stored[name].dtype == array.dtype and np.array_equal(stored[name], array)


def test_seconds_add_up_over_the_processes_of_an_attempt(state: RunState) -> None:
    state.begin_attempt()
    state.add_seconds("align", 1.5)
    RunState(state.out).add_seconds("align", 2.0)
    state.add_seconds("fuse", 1.0)
    assert state.attempts() == [{"align": 3.5, "fuse": 1.0}]
    for _ in range(2):  # the second has done nothing
        state.begin_attempt()
    state.add_seconds("fuse", 4.0)
    assert state.attempts() == [{"align": 3.5, "fuse": 1.0}, {"fuse": 4.0}]


def test_seconds_of_earlier_versions_are_those_of_the_first_attempt(state: RunState) -> None:
    state.save_record("seconds", {"align": 3.5})
    assert state.attempts() == [{"align": 3.5}]
    state.begin_attempt()
    state.add_seconds("align", 1.0)
    assert state.attempts() == [{"align": 3.5}, {"align": 1.0}]
    state.save_record("seconds", [{"align": "long"}])
    with pytest.raises(OutputError, match=r"seconds\.json is damaged .* delete that file"):
        state.attempts()


def test_blocks_come_back_and_missing_ones_are_known(state: RunState) -> None:
    plan = make_plan()
    planted = make_block(plan, 2, skipped=(int(plan.blocks[2][1]),))
    state.save_block(2, planted)
    assert state.missing_blocks(4) == [0, 1, 3]
    stored = state.block(2)
    for name in ("ids", "targets", "participants", "skipped"):
        assert getattr(stored, name).dtype == getattr(planted, name).dtype
        assert np.array_equal(getattr(stored, name), getattr(planted, name))
    assert stored.seconds == state.block_seconds(2) == 0.5
    with pytest.raises(OutputError, match=r"0000003.npz is missing; run the same command again"):
        state.block(3)


def test_no_damage_to_a_block_goes_unseen_or_escapes(state: RunState) -> None:
    """Every 7th byte flipped, every 41st cut: loading gives the block or an OutputError."""
    planted = Block(
        np.array([3, 9]),
        np.ones((2, 2), np.float16),
        np.zeros(2, np.int16),
        np.array([5]),
        seconds=1.0,
    )
    state.save_block(0, planted)
    path = state.folder / "blocks" / "0000000.npz"
    whole = path.read_bytes()
    flipped = (
        whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :] for at in range(0, len(whole), 7)
    )
    cut = (whole[:at] for at in range(0, len(whole), 41))
    refused = 0
    for content in [*flipped, *cut]:
        path.write_bytes(content)
        try:
            stored = state.block(0)
        except OutputError as error:
            assert "0000000.npz is damaged" in str(error) and "delete that file" in str(error)
            refused += 1
        else:
            assert stored.digest == planted.digest
            assert np.array_equal(stored.skipped, planted.skipped) and stored.seconds == 1.0
    assert refused > len(whole) // 41


def test_whole_block_with_other_rows_is_damaged(state: RunState) -> None:
    """The archive's own checksums are right, but its digest is that of other rows."""
    plan = make_plan()
    block = make_block(plan, 0)
    state.save_arrays(
        "blocks/0000000",
        **{k: getattr(block, k) for k in ("ids", "participants", "skipped")},
        targets=block.targets[::-1],
        seconds=np.array(0.0),
        digest=np.array(block.digest.encode()),
    )
    with pytest.raises(OutputError, match="is damaged; delete that file"):
        state.block(0)


def test_damaged_record_is_named(state: RunState) -> None:
    (state.folder / "plan.json").write_text('{"contributors": [')
    with pytest.raises(OutputError, match=r"plan\.json is damaged"):
        state.record("plan", dict[str, Any])


def test_plan_comes_back(state: RunState) -> None:
    assert read_plan(state) is None
    plan = make_plan()
    save_plan(state, plan)
    stored = read_plan(state)
    assert stored is not None
    assert (stored.contributors, stored.owners) == (plan.contributors, plan.owners)
    assert all(map(np.array_equal, stored.blocks, plan.blocks))
    assert len(stored.blocks) == len(plan.blocks) == 7
    assert np.array_equal(stored.shared, plan.shared)
    assert stored.blocks_of("bob") == [1, 3, 5]


def test_changes_of_the_plan_come_back_and_name_new_contributors(state: RunState) -> None:
    plan = make_plan()
    save_plan(state, plan)
    lost = Change("bob", [1, 5], ["ann", "cyd"], "it went offline", {})
    save_changes(state, plan.moved(lost))
    stored = read_plan(state)
    assert stored is not None
    assert stored.contributors == ["ann", "bob", "cyd"]
    assert stored.owners == [0, 0, 0, 1, 0, 2, 0]
    assert stored.changes == [lost]
    assert stored.out() == {"bob"}
    assert stored.moved(Change("cyd", [5], ["bob"], "it died", {})).out() == {"cyd"}
