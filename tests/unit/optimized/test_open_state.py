"""A directory has one run, and a run one process."""

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from coopt_fl.config.schema import Config
from coopt_fl.core.errors import OutputError
from coopt_fl.core.progress import Progress
from coopt_fl.federation.holding import Run, open_run, open_state, whole_run
from coopt_fl.federation.state import RunState

CONFIG = {"seed": 0, "data": {"source": "digits"}, "participants": [{"name": "ann"}]}


@pytest.fixture
def state(tmp_path: Path) -> RunState:
    with open_state(tmp_path / "out", "key", CONFIG) as state:
        return state


def test_same_key_resumes_and_sweeps_leftovers(state: RunState) -> None:
    state.save_record("some", 1)
    leftover = state.folder / "blocks" / ".0000001.npz.7.tmp"
    leftover.parent.mkdir(exist_ok=True)
    leftover.write_bytes(b"half")
    with open_state(state.out, "key", CONFIG) as again:
        assert again.record("some", int) == 1
    assert not leftover.exists()


def test_what_failed_before_it_began_makes_room_for_other_settings(state: RunState) -> None:
    with open_state(state.out, "other", CONFIG | {"seed": 1}):
        assert state.record("run", Run).key == "other"


def test_other_key_is_refused_with_what_changed(state: RunState) -> None:
    state.save_record("some", 1)
    other = {"seed": 1, "data": {"source": "digits"}, "participants": [{"name": "bob"}], "new": 2}
    with pytest.raises(OutputError) as caught, open_state(state.out, "other", other):
        pass
    message = str(caught.value)
    for part in ("seed: 0 there, 1 here", "participants.0.name: ann there, bob here", "new: None"):
        assert part in message
    assert "source" not in message and "another --out" in message
    with pytest.raises(OutputError, match="the data differ"), open_state(state.out, "x", CONFIG):
        pass


def test_a_run_is_finished_with_the_decoder_that_it_was_begun_with(state: RunState) -> None:
    """A finished run decodes nothing more, and can be opened with any decoder."""
    with open_state(state.out, "key", CONFIG, "Pillow 1"):
        state.save_record("some", 1)
    with open_state(state.out, "key", CONFIG, "Pillow 1"):
        pass
    with (
        pytest.raises(OutputError, match=r"decoded by Pillow 1, and Pillow 2 may .* another --out"),
        open_state(state.out, "key", CONFIG, "Pillow 2"),
    ):
        pass
    state.dataset.mkdir()
    (state.dataset / "provenance.json").touch()
    with open_state(state.out, "key", CONFIG, "Pillow 2"):
        pass


def test_a_run_of_before_decoders_were_stored(state: RunState) -> None:
    """Without a recorded decoder, it resumes only if nothing has to be decoded."""
    state.save_record("some", 1)
    state.save_record("run", {"key": "key", "config": CONFIG})
    with open_state(state.out, "key", CONFIG) as again:
        assert again.record("run", Run) == Run("key", CONFIG)
    with (
        pytest.raises(OutputError, match="a version of coopt-fl that did not say by what"),
        open_state(state.out, "key", CONFIG, "Pillow 2"),
    ):
        pass


def test_foreign_folder_and_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(OutputError, match="is not empty and holds no run"),
        open_state(tmp_path, "key", CONFIG),
    ):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "thesis.tex"]
    with (
        pytest.raises(OutputError, match=r"cannot create .* --out"),
        open_state(tmp_path / "thesis.tex", "key", CONFIG),
    ):
        pass


def test_unwritable_folder_is_refused(state: RunState, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with (
        pytest.raises(OutputError, match=r"cannot write in .*Permission denied"),
        open_state(state.out, "key", CONFIG),
    ):
        pass


def hold(out: Path, pipe: Connection) -> None:
    with open_state(out, "key", CONFIG):
        pipe.send("held")
        pipe.recv()


def test_folder_in_use_is_refused_until_its_holder_ends(tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()
    holder = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path, there))
    holder.start()
    try:
        assert here.recv() == "held"
        with (
            pytest.raises(OutputError, match="in use by another process"),
            open_state(tmp_path, "key", CONFIG),
        ):
            pass
    finally:
        holder.kill()
        holder.join()
    with open_state(tmp_path, "key", CONFIG) as state:  # the lock died with its holder
        assert state.record("run", Run).key == "key"


def test_a_command_keeps_its_directory_between_its_steps(tmp_path: Path) -> None:
    out, progress = tmp_path / "out", Progress()
    with whole_run(out, progress):
        with open_run(Config(), out, progress) as (_, state):
            assert not state.published
        with progress.phase("describe"):
            pass  # as Ray is started, between two steps
        with pytest.raises(OutputError, match="in use"), whole_run(out, Progress()):
            pass
    assert [set(attempt) for attempt in RunState(out).attempts()] == [{"describe"}]
    with whole_run(out, Progress()):
        pass


def test_a_log_alone_does_not_make_a_run(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyError, match="planted"), whole_run(tmp_path, Progress()):
            raise KeyError("planted")
    log = (tmp_path / "state" / "log.txt").read_text()
    assert log.count("begins") == log.count("KeyError: 'planted'") == 2
    for key in ("one", "other"):
        with open_state(tmp_path, key, CONFIG) as state:
            assert state.record("run", Run).key == key


def test_a_command_leaves_what_is_no_run_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    with pytest.raises(OutputError, match="holds no run"), whole_run(tmp_path, Progress()):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
