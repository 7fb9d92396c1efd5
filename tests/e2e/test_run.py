"""``coopt run`` through Ray: the summary, the same digest again, and what remains untouched."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path

import psutil
import pytest

import coopt_fl
from coopt_fl.config.load import from_tree
from coopt_fl.optimized.verify import verify
from tests.e2e.conftest import SECONDS, TINY, Made, Shell, actors_of, kill_session, times
from tests.flower.conftest import identity as identity
from tests.flower.conftest import quick as quick
from tests.flower.grid import run_platform

pytestmark = pytest.mark.xdist_group("ray")

BLOCKS = 120
"""Of a run that is ended in between: a block a message, so that it takes a while."""

DEFAULT_DIGEST = "cd4ed73c6f89375a888eaefdcae6704d649ef36322029a1fc1a5e95ef0456074"
"""Of ``coopt run`` as it comes, on a CPU, with the versions of ``constraints.txt``."""

ON_INTEL = "9d86edc548c083cf47039425d08ba2233b10d50056f188251aadaeaa91cb1b1e"
"""The same on a Xeon with AVX-512 and AMX."""

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


def test_summary_and_what_a_second_run_does(made: Made) -> None:
    shell, tiny, out, summary = made.shell, made.config, made.out, made.summary
    for key, inner in KEYS.items():
        assert set(summary[key]) == inner
    assert all(set(row) == COLUMNS for row in summary["participants"])
    assert sum(row["samples"] for row in summary["participants"]) == 600
    assert all(isinstance(row["r2_heldout"], float) for row in summary["participants"])
    assert summary["dataset"]["rows"] == 600
    assert verify(out / "dataset")[1] == []
    assert coopt_fl.load(out).digest == summary["dataset"]["digest"]
    assert (out / "state" / "log.txt").read_text().count("payloads come by OnHost") == 1
    assert {path.suffix for path in (out / "state" / "blocks").iterdir()} == {".npz", ".rows"}

    before = times(out)
    again = shell.summary("run", tiny, "--out", str(out), "simulation.actors=1")
    assert again["dataset"] == summary["dataset"]
    assert again["student"] == summary["student"]
    changed = {name for name, when in times(out).items() if before.get(name) != when}
    state = {"seconds.json", "lock", "command", "log.txt"}
    assert changed <= {"summary.json", *(f"state/{name}" for name in state)}
    assert summary["earlier_seconds"] == {}


CALLER = """
import os, sys
import ray
import coopt_fl
from coopt_fl.targets.solvers import ridge

@coopt_fl.register.solver("mine")
def mine(source, target, seed):
    return ridge(source, target, seed)

@ray.remote
def double(x):
    return 2 * x

def environment():
    ours = ("FLWR_", "RAY_", "PYTHON")  # torch and others leave some of their own
    return {name: value for name, value in os.environ.items() if name.startswith(ours)}

if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    before = environment()
    changes = {"data.limit": 200, "targets.solver": "mine", "plugins": [sys.argv[3]],
               "assignment.by": "in_turn", "simulation.actors": 1}
    found = coopt_fl.run(sys.argv[1], changes, out=sys.argv[2], progress=None).summary
    assert coopt_fl.run(sys.argv[1], changes, out=sys.argv[2], progress=None).summary["dataset"] \
        == found["dataset"], "the same call goes on"
    assert environment() == before
    print(found["dataset"]["rows"], ray.get(double.remote(21)))
"""


PLUGIN = """
import coopt_fl

@coopt_fl.register.assignment("in_turn")
def in_turn(blocks, members):
    return [members[index % len(members)].name for index in range(len(blocks))]
"""


def test_a_caller_that_uses_ray_keeps_its_session(shell: Shell, tiny: str) -> None:
    script = shell.folder / "caller.py"
    script.write_text(CALLER)
    plugin = shell.folder / "plugin.py"
    plugin.write_text(PLUGIN)
    done = shell.run(sys.executable, str(script), tiny, str(shell.folder / "out"), str(plugin))
    assert done.stdout.split() == ["200", "42"], done.stderr[-3000:]


def test_the_default_run_teaches_a_student(shell: Shell) -> None:
    """The demo: real priors, the digits, and a student that beats its own random start."""
    summary = shell.summary("run", "--out", str(shell.folder / "digits"))
    assert summary["dataset"]["rows"] == 1437
    intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    assert summary["dataset"]["digest"] == (ON_INTEL if intel else DEFAULT_DIGEST)
    assert summary["reference"] == "consensus"
    assert all(0 < row["r2_heldout"] < 1 for row in summary["participants"])
    assert summary["student"]["probe_accuracy"] > summary["comparison"]["random_init"]
    assert summary["student"]["probe_accuracy"] > summary["comparison"]["reference_prior"]


def test_whatever_ends_it_the_same_command_goes_on_to_the_same_digest(
    shell: Shell, tiny: str, identity: None
) -> None:
    """Ctrl-C, SIGKILL, the death of a participant: one after another.

    To the digest of a run that nothing ended, in this process.
    """
    many = [f"data.limit={100 * BLOCKS}", "optimize.block_rows=100", "student.batch_size=2000"]
    run_platform(from_tree(deepcopy(TINY), many, "tiny"), shell.folder / "whole")
    command = ("run", tiny, *many, "simulation.actors=1", "--out")
    out = shell.folder / "cut"
    blocks = out / "state" / "blocks"

    running = shell.start("coopt", *command, str(out), log="interrupted")
    _wait_for(out / "state" / "alignments", running)
    running.send_signal(signal.SIGINT)
    assert running.wait(SECONDS) == 130
    assert "the same command continues" in _said(shell, "interrupted")

    running = shell.start("coopt", *command, str(out), log="killed")
    _wait_for_more(blocks, len(times(blocks)), running)
    kill_session(running.pid)
    running.wait()

    before = {name: when for name, when in times(blocks).items() if name.endswith(".npz")}
    running = shell.start("coopt", *command, str(out), log="orphaned")
    _wait_for_more(blocks, len(times(blocks)), running)
    with _held(running):  # or it may end, and its actors with it, before one is found
        assert len(list(blocks.glob("*.npz"))) < BLOCKS, "no block is left to be made"
        actors = actors_of(running.pid)
        assert actors, "no actor is running"
        for actor in actors:
            with suppress(psutil.NoSuchProcess):
                actor.kill()
    assert running.wait(SECONDS) == 5
    assert "run the same command again" in _said(shell, "orphaned")

    end = shell.summary(*command, str(out))
    after = times(blocks)
    assert {name: after[name] for name in before} == before
    assert end["dataset"]["digest"] == coopt_fl.load(shell.folder / "whole").digest
    assert verify(out / "dataset")[1] == []


def _said(shell: Shell, log: str) -> str:
    """Return what a command printed, which is never a traceback."""
    text = (shell.folder / log).read_text()
    assert "Traceback" not in text
    return text


def _wait_for_more(folder: Path, count: int, running: subprocess.Popen[str]) -> None:
    """Wait until ``folder`` holds more than ``count`` files."""
    _wait(lambda: len(times(folder)) > count, running)


def _wait_for(path: Path, running: subprocess.Popen[str]) -> None:
    """Wait until ``path`` is there."""
    _wait(path.exists, running)


def _wait(until: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not until():
        assert running.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def _held(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stop a process, but none that it started, until the block ends."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
