"""From blocks to files: content, order of writing, and the state after a failure."""

import json
import threading
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coopt_fl.federation.holding import open_state
from coopt_fl.federation.plan import Plan, save_plan
from coopt_fl.federation.state import RunState
from coopt_fl.optimized import write as publish_module
from coopt_fl.optimized.block import Block
from coopt_fl.optimized.verify import verify
from tests.unit.optimized import make
from tests.unit.optimized.make import go
from tests.unit.optimized.test_block import defined

pytestmark = pytest.mark.usefixtures("small_files")


def test_each_block_is_a_row_group_and_each_row_what_was_planted(state: RunState) -> None:
    provenance, plan = go(state), make.make_plan()
    files = sorted((state.dataset / "data").iterdir())
    assert [f"data/{file.name}" for file in files] == [file.path for file in provenance.files]
    assert [file.name for file in files] == [f"part-0000{k}.parquet" for k in range(3)]
    readers = [pq.ParquetFile(file) for file in files]
    groups = [r.read_row_group(k) for r in readers for k in range(r.num_row_groups)]
    assert len(groups) == len(plan.blocks)
    for index, group in enumerate(groups):
        ids = [id for id in plan.blocks[index].tolist() if id not in make.SKIPPED]
        planted = make.target(np.array(ids)).tolist()
        who = [plan.owners[index]] * len(ids)
        assert group.column("id").to_pylist() == ids
        assert group.column("target").to_pylist() == planted
        assert group.column("participant").to_pylist() == who
        assert provenance.block_digests[index] == defined(ids, planted, who)
        assert provenance.block_rows[index] == len(ids)


def test_columns_and_codecs(state: RunState) -> None:
    go(state)
    parquet = pq.ParquetFile(state.dataset / "data/part-00000.parquet")
    kinds = {field.name: field.type for field in parquet.schema_arrow}
    assert kinds == {
        "id": pa.int64(),
        "target": pa.list_(pa.field("element", pa.float16(), nullable=False), make.DIM),
        "participant": pa.int16(),
    }
    group = parquet.metadata.row_group(0)
    codecs = [group.column(k).compression for k in range(group.num_columns)]
    assert codecs == ["ZSTD", "UNCOMPRESSED", "ZSTD"]


def test_provenance_tells_files_rows_skipped_and_digests(state: RunState) -> None:
    provenance = go(state)
    assert provenance.complete and provenance.parent is None
    assert provenance.rows == sum(provenance.block_rows) == make.ROWS - len(make.SKIPPED)
    assert provenance.skipped == list(make.SKIPPED)
    assert [(f.first_block, f.end_block) for f in provenance.files] == [(0, 3), (3, 5), (5, 7)]
    for file in provenance.files:
        assert file.sha256 == make.sha256(state.dataset / file.path)
        assert file.rows == sum(provenance.block_rows[file.first_block : file.end_block])
    card = (state.dataset / "README.md").read_text()
    for part in ("`trivial:ann`", "-1.500", "0.250", provenance.source["fingerprint"], "2 unread"):
        assert part in card


def test_progress_counts_rows(state: RunState) -> None:
    told: list[int] = []
    provenance = go(state, progress=told.append)
    assert told == np.cumsum([file.rows for file in provenance.files]).tolist()


def test_manifest_is_written_last(state: RunState, monkeypatch: pytest.MonkeyPatch) -> None:
    order, replace = [], Path.replace

    def watched(self: Path, to: Path) -> Path:
        order.append(to.name)
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", watched)
    go(state)
    parts = [f"part-0000{k}.parquet" for k in range(3)]
    assert sorted(order[:3]) == parts
    assert order[3:] == ["README.md", "croissant.json", "provenance.json"]


def test_blocks_stay_in_order_whichever_file_is_finished_first(
    state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, second = Path.replace, threading.Event()

    def held(self: Path, to: Path) -> Path:
        if to.name == "part-00000.parquet":
            assert second.wait(30), "the second file was not written beside the first"
        moved = replace(self, to)
        if to.name == "part-00001.parquet":
            second.set()
        return moved

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", held)
        provenance = go(state)
    assert verify(state.dataset)[1] == []
    assert provenance == go(state)


def test_same_blocks_give_the_same_bytes(state: RunState) -> None:
    first, second = go(state), go(state)
    assert first == second


def test_blocks_of_which_all_images_are_unreadable(tmp_path: Path) -> None:
    """One such block shares a file with others, the other would be a file's only one."""
    plan = make.make_plan()
    lost = tuple(sorted([*plan.blocks[1].tolist(), *plan.blocks[6].tolist()]))
    provenance = make.finish(tmp_path, skipped=lost, plan=plan)
    assert (provenance.block_rows[1], provenance.block_rows[6]) == (0, 0)
    assert provenance.skipped == list(lost)
    assert verify(tmp_path / "dataset")[1] == []


@pytest.mark.whole
def test_memory_does_not_hold_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 MB of targets in blocks of 2 MB, only a few blocks are in memory at any time."""
    monkeypatch.setattr(publish_module, "FILE_BYTES", 40 * 2**20)
    rows, dim, count = 4096, 256, 48
    ids = np.arange(rows * count).reshape(count, rows)
    plan = Plan(make.NAMES, list(ids), list(ids), [0] * count, shared=np.arange(4))
    with open_state(tmp_path, "key", asdict(make.config(dim))) as state:
        save_plan(state, plan)
        who, none = np.zeros(rows, np.int16), np.array([], np.int64)
        noise = np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float16)
        for index in range(count):
            state.save_block(index, Block(ids[index], noise, who, none, 0.0))
        first = replace(plan, blocks=plan.blocks[:1])
        go(state, first, dim)  # imports what it needs
        before, arrow, read = pa.total_allocated_bytes(), [0], state.block

        def watched(index: int) -> Block:
            arrow.append(pa.total_allocated_bytes() - before)
            return read(index)

        monkeypatch.setattr(state, "block", watched)
        tracemalloc.start()
        try:
            provenance = go(state, plan, dim)
            numpy = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert provenance.rows * dim * 2 > 100e6
    assert len(arrow) == count + 1
    assert numpy + max(arrow) < 60e6


def test_json_is_plain(state: RunState) -> None:
    """It has no NaN or infinity, which other languages' parsers refuse."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    go(state)
    raw = (state.dataset / "provenance.json").read_bytes()
    assert json.loads(raw, parse_constant=refuse)["complete"] is True
