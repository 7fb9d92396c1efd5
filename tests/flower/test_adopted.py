"""Units that simulated participants leave as files are adopted unchanged or refused as a whole."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

import coopt_fl
from coopt_fl.core.errors import CooptError, DataError, OutputError, ParticipantError
from coopt_fl.federation import protocol
from coopt_fl.federation.state import RunState
from coopt_fl.federation.units import Rows
from coopt_fl.optimized.block import row_type
from coopt_fl.optimized.verify import verify
from tests.flower.grid import FakeGrid, blocks_of, run_platform, tiny

DIM = 16
NAMES = ("alpha", "beta", "gamma")


def run(out: Path, grid: FakeGrid | None = None) -> FakeGrid:
    """Run the platform as in a simulation, where it starts the participants itself."""
    return run_platform(tiny(), out, grid, own_host=True)


def digest(out: Path) -> str:
    assert verify(out / "dataset")[1] == []
    return coopt_fl.load(out).digest


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose payloads came in the replies."""
    out = tmp_path_factory.mktemp("whole")
    run_platform(tiny(), out)
    return out


def folder_in(request: Message) -> Path:
    return Path(protocol.decode(protocol.Optimize, request.content).folder)


def test_the_dataset_is_that_of_payloads_in_replies(whole: Path, tmp_path: Path) -> None:
    grid = run(tmp_path)
    assert digest(tmp_path) == digest(whole)
    state, other = RunState(tmp_path), RunState(whole)
    assert not state.arriving.exists()
    for index in range(11):
        mine, theirs = state.audit_rows(index), other.audit_rows(index)
        assert all(map(np.array_equal, mine, theirs))
        same, before = state.block(index), other.block(index)
        assert same.skipped.tolist() == before.skipped.tolist() == []
        assert same.targets.flags.c_contiguous and same.seconds > 0
    sent, asked = state.record("uploads", dict[str, int]), other.record("uploads", dict[str, int])
    assert sent and asked and all(0.5 < sent[name] / asked[name] < 1.1 for name in asked)
    said = [folder_in(m) for m in grid.sent if m.metadata.message_type == protocol.OPTIMIZE]
    assert len(set(said)) == len(said) > 3


def test_a_file_is_what_its_digest_is_of(tmp_path: Path) -> None:
    told: list[protocol.Delivery] = []

    def listen(request: Message, reply: Message) -> Message:
        if request.metadata.message_type == protocol.OPTIMIZE:
            told.append(protocol.decode(protocol.Delivery, reply.content))
        return reply

    run(tmp_path, FakeGrid(3, tamper=listen))
    sums = {index: sum for one in told for index, sum in zip(one.blocks, one.digests, strict=True)}
    assert len(sums) == 11
    for index, sum in sums.items():
        file = tmp_path / "state" / "blocks" / f"{index:07d}.rows"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sum


def rewritten(change: Callable[[Rows], Rows]) -> Callable[[Path], str]:
    """Change the rows in a file, and return the digest of its new content."""

    def act(file: Path) -> str:
        rows = change(np.fromfile(file, row_type(DIM)))
        file.write_bytes(rows.tobytes())
        return hashlib.sha256(rows.tobytes()).hexdigest()

    return act


def with_value(name: str, value: Any) -> Callable[[Path], str]:
    def change(rows: Rows) -> Rows:
        rows[name][1] = value
        return rows

    return rewritten(change)


def linked(file: Path) -> str:
    file.rename(other := file.with_suffix(".other"))
    file.symlink_to(other)
    return hashlib.sha256(other.read_bytes()).hexdigest()


def piped(file: Path) -> str:
    file.unlink()
    os.mkfifo(file)
    return "0" * 64


def silent(file: Path) -> str:
    """Change the rows, but keep the digest in the reply."""
    true = hashlib.sha256(file.read_bytes()).hexdigest()
    with_value("target", 0.5)(file)
    return true


def gone(file: Path) -> str:
    file.unlink()
    return "0" * 64


BAD = {
    "a row less": rewritten(lambda rows: rows[:-1]),
    "a row more": rewritten(lambda rows: np.concatenate([rows, rows[-1:]])),
    "not finite": with_value("target", np.inf),
    "another id": with_value("id", 10**6),
    "another order": rewritten(lambda rows: rows[::-1].copy()),
    "another's name": with_value("participant", 2),
    "other rows than announced": silent,
    "no file": gone,
    "a link": linked,
    "a pipe": piped,
}
UNREADABLE = ("a row less", "a row more", "no file", "a link", "a pipe")
"""Faults that end a simulation, because the participant that wrote the file may not be to blame."""


@pytest.mark.parametrize("kind", list(BAD))
def test_a_file_that_is_not_what_was_asked_for_is_not_adopted(kind: str, tmp_path: Path) -> None:
    def tamper(request: Message, reply: Message) -> Message:
        asked = request.metadata.message_type == protocol.OPTIMIZE
        if bad or not asked or request.metadata.dst_node_id != 101:
            return reply
        told = protocol.decode(protocol.Delivery, reply.content)
        bad.append(told.blocks[0])
        sum = BAD[kind](folder_in(request) / f"{told.blocks[0]:07d}.rows")
        lie = replace(told, digests=[sum, *told.digests[1:]])
        return Message(protocol.encode(lie), reply_to=request)

    bad: list[int] = []
    if kind in UNREADABLE:
        with pytest.raises(DataError, match="participant beta: "):
            run(tmp_path, FakeGrid(3, tamper=tamper))
        assert not RunState(tmp_path).has_unit(bad[0])
        assert not (tmp_path / "state" / "blocks" / f"{bad[0]:07d}.rows").exists()
    else:
        run(tmp_path, FakeGrid(3, tamper=tamper))
        (change,) = verify(tmp_path / "dataset")[0].plan_changes
        assert (change["origin"], change["rejected"]) == ("beta", True)
        assert "not used" in change["reason"]
        assert 1 not in coopt_fl.load(tmp_path).participants
    assert not RunState(tmp_path).arriving.exists()


def test_a_deployed_participant_leaves_no_files(tmp_path: Path) -> None:
    """The platform of a deployment does not ask for files either."""
    grid = run_platform(tiny(), tmp_path / "run")
    request = next(m for m in grid.sent if m.metadata.message_type == protocol.OPTIMIZE)
    asked = protocol.decode(protocol.Optimize, request.content)
    assert asked.folder == ""
    grid.node_config = lambda partition: {"name": NAMES[partition]}
    told = replace(asked, folder=str(tmp_path))
    again = Message(protocol.encode(told), request.metadata.dst_node_id, protocol.OPTIMIZE)
    error = protocol.error_in(grid._answer(again).content)
    assert isinstance(error, ParticipantError) and "leaves no files" in str(error)
    assert list(tmp_path.glob("*.rows")) == []


@pytest.mark.parametrize("files_first", [True, False])
@pytest.mark.parametrize("number", [8, 12])
def test_a_run_goes_on_whichever_way_its_payloads_came_before(
    files_first: bool, number: int, whole: Path, tmp_path: Path
) -> None:
    """A run resumes with either route, and files that a killed platform left behind are removed."""

    class Dying(FakeGrid):
        def pull_messages(self, message_ids: list[str]) -> list[Message]:
            if len(self.sent) >= number:
                raise KeyboardInterrupt
            return super().pull_messages(message_ids)

    with pytest.raises(KeyboardInterrupt):
        run_platform(tiny(), tmp_path, Dying(3), own_host=files_first)
    left = tmp_path / "state" / "arriving" / "alpha-0" / "0000000.rows"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    before = blocks_of(tmp_path)
    run_platform(tiny(), tmp_path, own_host=not files_first)
    assert before.items() <= blocks_of(tmp_path).items()
    assert digest(tmp_path) == digest(whole)
    assert not left.parent.parent.exists()


def test_rows_that_were_damaged_are_named_and_done_again_once_removed(
    whole: Path, tmp_path: Path
) -> None:
    run(tmp_path)
    shutil.rmtree(tmp_path / "dataset")
    file = tmp_path / "state" / "blocks" / "0000003.rows"
    true = file.read_bytes()
    for damaged in (true[:-1], true[:-1] + bytes([true[-1] ^ 1])):
        file.write_bytes(damaged)
        with pytest.raises(OutputError, match=r"0000003\.rows .*delete that file"):
            run(tmp_path)
    file.unlink()
    grid = run(tmp_path)
    assert grid.kinds().count(protocol.OPTIMIZE) == 1
    assert digest(tmp_path) == digest(whole)


def test_a_death_between_renaming_and_recording_costs_that_unit_alone(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = RunState.save_arrays, []

    def dying(state: RunState, name: str, **arrays: Any) -> None:
        if name.startswith("blocks/"):
            calls.append(name)
            if len(calls) == 4:
                raise KeyboardInterrupt
        save(state, name, **arrays)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunState, "save_arrays", dying)
        run(tmp_path)
    assert (tmp_path / "state" / f"{calls[-1]}.rows").exists()
    run_platform(tiny(), tmp_path)  # through replies, so that the rows must not be taken for theirs
    assert digest(tmp_path) == digest(whole)


@pytest.mark.parametrize("number", range(1, 12, 2))
def test_a_full_disk_stops_the_run_and_a_later_one_completes_it(
    number: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full for the participant, or for the platform."""
    count, real = [0], os.fsync

    def full(handle: int) -> None:
        count[0] += "/state/arriving/" in str(Path(f"/proc/self/fd/{handle}").readlink())
        if count[0] >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch, pytest.raises(CooptError, match="No space left"):
        patch.setattr(os, "fsync", full)
        run(tmp_path)
    assert not RunState(tmp_path).arriving.exists()
    before = blocks_of(tmp_path)
    run(tmp_path)
    assert before.items() <= blocks_of(tmp_path).items()
    assert digest(tmp_path) == digest(whole)
