"""``coopt run`` through Ray: the summary, the same digest again, and what remains untouched."""

import signal
import time
from pathlib import Path

import psutil
import pytest

import coopt_fl
from coopt_fl.optimized.verify import verify
from tests.e2e.conftest import Shell, kill_session, times

pytestmark = pytest.mark.e2e

KEYS = {
    "dataset": {"path", "digest", "rows", "dim"},
    "student": {"model", "epochs", "probe_accuracy", "seconds"},
    "comparison": {"random_init", "reference_prior"},
}
COLUMNS = {
    "name",
    "prior",
    "uniformity",
    "r2_heldout",
    "samples",
    "seconds",
    "samples_per_s",
    "mb",
}


def test_summary_and_what_a_second_run_does(shell: Shell, tiny: str) -> None:
    out = shell.folder / "run"
    summary = shell.summary("run", tiny, "--out", str(out), "simulation.actors=1")
    for key, inner in KEYS.items():
        assert set(summary[key]) == inner
    assert all(set(row) == COLUMNS for row in summary["participants"])
    assert sum(row["samples"] for row in summary["participants"]) == 600
    assert all(isinstance(row["r2_heldout"], float) for row in summary["participants"])
    assert summary["dataset"]["rows"] == 600
    assert verify(out / "dataset")[1] == []
    assert coopt_fl.load(out).digest == summary["dataset"]["digest"]

    before = times(out)
    again = shell.summary("run", tiny, "--out", str(out), "simulation.actors=1")
    assert again["dataset"] == summary["dataset"]
    assert again["student"] == summary["student"]
    changed = {name for name, when in times(out).items() if before.get(name) != when}
    assert changed <= {"summary.json", "state/seconds.json", "state/lock"}

    two = shell.summary(
        "run", tiny, "--out", str(shell.folder / "two"), "simulation.actors=2", "simulation.cpus=1"
    )
    assert two["dataset"]["digest"] == summary["dataset"]["digest"]


def test_killed_at_any_moment_it_goes_on_to_the_same_digest(shell: Shell, tiny: str) -> None:
    whole = shell.summary("run", tiny, "--out", str(shell.folder / "whole"))
    out = shell.folder / "cut"
    kills = 0
    for wanted in ("state/plan.json", "state/alignments", "state/blocks", "dataset/data"):
        running = shell.start("coopt", "run", tiny, "--out", str(out))
        if not _wait_for(out / wanted, running):
            break
        kill_session(running.pid)
        running.wait()
        kills += 1
        before = times(out / "state" / "blocks") if (out / "state" / "blocks").exists() else {}
    assert kills >= 3
    end = shell.summary("run", tiny, "--out", str(out))
    after = times(out / "state" / "blocks")
    assert {name: after[name] for name in before if name.endswith(".npz")} == {
        name: when for name, when in before.items() if name.endswith(".npz")
    }
    assert end["dataset"]["digest"] == whole["dataset"]["digest"]
    assert verify(out / "dataset")[1] == []


def test_a_participant_that_dies_is_one_sentence_and_nothing_is_lost(
    shell: Shell, tiny: str
) -> None:
    out = shell.folder / "run"
    settings = ("data.limit=20000", "optimize.block_rows=200")
    running = shell.start("coopt", "run", tiny, "--out", str(out), *settings)
    assert _wait_for(out / "state" / "blocks", running)
    _actor_of(running.pid).kill()
    assert running.wait(300) == 5
    log = (shell.folder / "log").read_text()
    assert "Traceback" not in log
    assert "run the same command again" in log
    end = shell.summary("run", tiny, "--out", str(out), *settings)
    assert end["dataset"]["rows"] == 20000
    assert verify(out / "dataset")[1] == []


def test_interrupted_it_says_how_to_go_on(shell: Shell, tiny: str) -> None:
    out = shell.folder / "run"
    running = shell.start("coopt", "run", tiny, "--out", str(out), "data.limit=20000")
    assert _wait_for(out / "state" / "blocks", running)
    running.send_signal(signal.SIGINT)
    assert running.wait(120) == 130
    log = (shell.folder / "log").read_text()
    assert "the same command continues" in log
    assert "Traceback" not in log


def _wait_for(path: Path, running: object, seconds: float = 240) -> bool:
    """Wait until ``path`` is there; False if the process ended first."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists():
            return True
        if running.poll() is not None:  # type: ignore[attr-defined]
            return False
        time.sleep(0.02)
    raise TimeoutError(path)


def _actor_of(pid: int) -> psutil.Process:
    """Return a Ray actor that works for process ``pid``."""
    for process in psutil.Process(pid).children(recursive=True):
        if "ray::ClientAppActor" in " ".join(process.cmdline()):
            return process
    raise LookupError("no actor is running")
