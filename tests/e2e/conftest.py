"""Real processes: the command line, Ray, SuperLinks. Nothing here is imported from the package."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.e2e.chromium import find_chromium
from tests.e2e.nginx import find_nginx

ROOT = Path(__file__).parents[2]
PARTS = ("coopt_fl", "strategies", "conf", "pyproject.toml", "README.md", "LICENSE")
"""Of the repository, what goes into Flower's bundle."""

PORTS = count()
SECONDS = 1800
"""For a program to end, and an hour for a test: a host may be several times slower than ours."""

TINY: dict[str, Any] = {
    "data": {"source": "synthetic", "limit": 600},
    "participants": [
        {"name": "alpha", "prior": "trivial:24"},
        {"name": "beta", "prior": "trivial:32"},
        {"name": "gamma", "prior": "trivial:20"},
    ],
    "shared": {"size": 64},
    "targets": {"dim": 16},
    "optimize": {"block_rows": 20, "batch_size": 10, "chunk_mb": 0.0013},
    "student": {"model": "convnet:4", "epochs": 1},
    "probe": {"limit": 100},
}
"""Runs in seconds: synthetic images, priors without a model, 30 blocks in chunks of two."""


@dataclass
class Shell:
    """Runs programs in ``folder``, with the environment's own on the PATH and a private Flower."""

    folder: Path
    port: int
    extra: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        port = str(self.port)
        programs = str(Path(sys.executable).parent)
        return {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(self.folder / "flwr"),
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": port,
            "FLWR_LOCAL_CONTROL_API_PORT": port,
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "RAY_worker_niceness": "0",  # not 15: other tests, which give way to these, have 10
            "NO_PROXY": "127.0.0.1,localhost",
            **self.extra,
        }

    def run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def start(self, *command: str, log: str = "log") -> subprocess.Popen[str]:
        """Start a program in a session of its own, so that it can be killed with its children."""
        output = (self.folder / log).open("w")
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.env,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def coopt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``coopt``."""
        return self.run(sys.executable, "-m", "coopt_fl", *arguments)

    def summary(self, *arguments: str) -> dict[str, Any]:
        """Run ``coopt ... --json``, which must succeed, and return the last line's value."""
        done = self.coopt(*arguments, "--json")
        assert done.returncode == 0, done.stderr[-4000:]
        value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return value


@dataclass(frozen=True)
class Made:
    """A finished ``coopt run`` of the tiny configuration, with one actor, by an installed wheel.

    ``RAY_ADDRESS`` names a cluster that is not there.
    """

    wheel: Path
    python: str
    shell: Shell
    config: str
    out: Path
    summary: dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test here twice the time of a program, unless it says otherwise."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(2 * SECONDS))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, and name, a test that needs a program where there is none."""
    for program, find in (("nginx", find_nginx), ("chromium", find_chromium)):
        if item.get_closest_marker(program) and not find():
            pytest.skip(
                f"{item.name} needs {program}, which is not on the PATH and not to be had by apt"
            )


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in a temporary folder; whatever it started is killed at the end."""
    shell = Shell(tmp_path, free_port())
    yield shell
    for process in shell.started:
        kill_session(process.pid)
    for link in _superlinks(shell.port):  # which `flwr run` leaves behind
        kill_session(_session(link.pid))


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """The path of the tiny configuration."""
    return written(tmp_path / "tiny.yaml", TINY)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One run for all who need a digest to compare with, or a run to repeat."""
    from tests.e2e.elsewhere import build, install

    shell = Shell(tmp_path_factory.mktemp("made"), free_port())
    shell.extra["RAY_ADDRESS"] = f"127.0.0.1:{free_port()}"
    wheel = build(shell)
    python = install(shell, str(wheel))
    config, out = written(shell.folder / "tiny.yaml", TINY), shell.folder / "run"
    coopt = str(Path(python).parent / "coopt")
    done = shell.run(coopt, "run", config, "--out", str(out), "simulation.actors=1", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    return Made(wheel, python, shell, config, out, json.loads(done.stdout.splitlines()[-1]))


def written(path: Path, config: dict[str, Any]) -> str:
    """Write a configuration; return its path."""
    path.write_text(yaml.safe_dump(config))
    return str(path)


def checkout(folder: Path) -> Path:
    """Copy what Flower bundles into ``folder``.

    ``flwr run`` looks at every file below its folder: 6 CPU seconds where an environment is there.
    """
    folder.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)
    return folder


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on and no other test asks for.

    It is below those that the system gives to whoever asks for any, such as Ray.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    for port in range(20000 + 1000 * worker + next(PORTS), 32768):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def actors_of(pid: int) -> list[psutil.Process]:
    """Return the processes of Ray in which participants of process ``pid`` work, or soon will.

    Their title is ``ray::ClientAppActor``, unless Ray could not set it.
    """
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            words = process.cmdline()  # the raylet's hold the worker's program within a longer one
            if any(
                word.startswith("ray::ClientAppActor") or word.endswith("/default_worker.py")
                for word in words
            ):
                found.append(process)
    return found


def kill_session(pid: int) -> None:
    """SIGKILL a process, all its descendants, and whatever else runs in its session."""
    family = [p for p in psutil.process_iter() if _session(p.pid) == pid]
    for process in list(family):
        try:
            family += process.children(recursive=True)
        except psutil.NoSuchProcess:
            continue
    for process in family:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _superlinks(port: int) -> list[psutil.Process]:
    """Return the SuperLinks on ``port``."""
    found = psutil.process_iter(["cmdline"])
    return [p for p in found if {"--simulation", str(port)} <= set(p.info["cmdline"] or [])]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def times(folder: Path) -> dict[str, int]:
    """Return the modification time of every file below ``folder``; not of one half written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
