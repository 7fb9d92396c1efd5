"""A publication that fails or is interrupted: the state it leaves, and its repair."""

import errno
import os
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from coopt_fl.core.errors import OutputError
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.block import Block
from coopt_fl.optimized.verify import verify
from tests.unit.optimized.make import go

pytestmark = pytest.mark.usefixtures("small_files")


@pytest.mark.parametrize("survivors", [0, 1, 2, 3, 4])
def test_death_between_files_leaves_no_manifest_and_is_made_good(
    survivors: int, state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies after some of the five renames, of which the manifest's is the last."""
    replace, done, turn = Path.replace, [], threading.Lock()

    def mortal(self: Path, to: Path) -> Path:
        with turn:  # files are written by several threads
            if len(done) == survivors:
                raise KeyboardInterrupt
            done.append(to)
        return replace(self, to)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", mortal)
        go(state)
    assert len(done) == survivors
    assert not (state.dataset / "provenance.json").exists()
    assert go(state).complete
    assert verify(state.dataset)[1] == []


def test_full_disk_keeps_earlier_files(state: RunState, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def full(handle: int) -> None:
        if "part-00001" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"part-00001.*No space left.*what was finished"):
            go(state)
    kept = {path.name: path for path in (state.dataset / "data").iterdir()}
    assert "part-00000.parquet" in kept
    assert kept.keys() <= {"part-00000.parquet", "part-00002.parquet"}
    assert all(pq.read_metadata(path).num_rows for path in kept.values())
    assert not (state.dataset / "provenance.json").exists()
    assert state.missing_blocks(7) == []
    go(state)
    assert verify(state.dataset)[1] == []


def test_nothing_of_an_earlier_publication_survives(state: RunState) -> None:
    """A block was recomputed with other targets, as on another device, into fewer files."""
    before = go(state)
    (state.dataset / "data/part-00009.parquet").write_bytes(b"of an earlier cut")
    (state.dataset / "data/.part-00000.parquet.1.tmp").write_bytes(b"half")
    block = state.block(4)
    state.save_block(4, Block(block.ids, block.targets + 1, block.participants, block.skipped, 1.0))
    after = go(state)
    assert [a == b for a, b in zip(before.block_digests, after.block_digests, strict=True)] == [
        index != 4 for index in range(7)
    ]
    assert verify(state.dataset)[1] == []
    assert len(list((state.dataset / "data").iterdir())) == 3


def test_missing_block_stops_it(state: RunState) -> None:
    (state.folder / "blocks/0000005.npz").unlink()
    with pytest.raises(OutputError, match=r"0000005\.npz is missing; run the same command again"):
        go(state)
    assert not (state.dataset / "provenance.json").exists()
