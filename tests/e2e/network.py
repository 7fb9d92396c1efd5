"""A SuperLink and SuperNodes on the loopback interface, one process each, to be killed at will."""

import json
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.conftest import ROOT, SECONDS, Shell, free_port, kill_session, times

QUICK = "--disable-runtime-dependency-installation"


class Network:
    """Participants by name, and the platform's runs.

    Args:
        shell: runs the programs.
        config: path of the configuration.
        overrides: settings of all runs, as in a shell.
        apart: start the platform's program apart from the SuperLink, as docs/deployment.md does.
    """

    def __init__(self, shell: Shell, config: str, overrides: str, apart: bool = False) -> None:
        self.shell, self.config, self.overrides = shell, config, overrides
        self.apart = apart
        self.address = f"127.0.0.1:{free_port()}"
        self.nodes: dict[str, subprocess.Popen[str]] = {}
        self.out = shell.folder / "out"
        home = shell.folder / "flwr"
        home.mkdir(exist_ok=True)
        settings = f'[superlink.here]\naddress = "{self.address}"\ninsecure = true\n'
        (home / "config.toml").write_text(settings)
        self.link = self.start_link()
        executor = ("flower-superexec", "--insecure", "--runtime-api-address", self.address)
        self.executor = shell.start(*executor, log="superexec") if apart else None

    def start_link(self) -> subprocess.Popen[str]:
        """Start the SuperLink on this network's port, with a database that survives it."""
        port = self.address.rpartition(":")[2]
        database = ("--database", str(self.shell.folder / "link.db"))
        options = ("--isolation", "process") if self.apart else (QUICK,)
        command = ("flower-superlink", "--insecure", "--port", port, *database, *options)
        return self.shell.start(*command, log=f"superlink-{time.monotonic_ns()}")

    def join(self, *names: str) -> None:
        """Start a SuperNode for each name."""
        for name in names:
            command = ("flower-supernode", "--insecure", "--superlink", self.address)
            own = ("--port", str(free_port()), "--node-config", f'name="{name}"')
            log = f"supernode-{name}-{time.monotonic_ns()}"
            self.nodes[name] = self.shell.start(*command, *own, log=log)

    def kill(self, name: str) -> None:
        """Kill a SuperNode and whatever it has started."""
        kill_session(self.nodes[name].pid)

    def submit(self, overrides: str = "") -> subprocess.Popen[str]:
        """Start a run; the process ends with it."""
        _wait(self._listening, "the SuperLink")
        words = f"{self.overrides} {overrides}".strip()
        settings = f"config='{self.config}' out='{self.out}' overrides='{words}'"
        command = ("flwr", "run", str(ROOT), "here", "--stream", "--run-config", settings)
        return self.shell.start(*command, log=f"run-{time.monotonic_ns()}")

    def _listening(self) -> bool:
        host, _, port = self.address.rpartition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def finish(self, run: subprocess.Popen[str]) -> None:
        """Wait until a run has published the dataset; its student is no matter here."""
        published = self.out / "dataset" / "provenance.json"
        _wait(lambda: published.exists() or run.poll() is not None, "a dataset", self.said)
        assert published.exists(), self.said()

    def until_published(self) -> None:
        """Wait for the dataset; ``flwr run`` ends with the SuperLink, even if the run does not."""
        _wait((self.out / "dataset" / "provenance.json").exists, "a dataset", self.said)

    def said(self) -> str:
        """Return what the last run printed."""
        logs = sorted(self.shell.folder.glob("run-*"), key=lambda path: path.stat().st_mtime)
        return logs[-1].read_text()[-6000:] if logs else ""

    def until_at_work(self, name: str) -> None:
        """Wait until the participant ``name`` works on a message."""
        _wait(lambda: _apps(self.nodes[name].pid, "clientapp"), "a participant at work")

    def kill_app_of(self, name: str) -> None:
        """Kill the process in which the participant ``name`` works on a message."""
        _wait(lambda: _killed(_apps(self.nodes[name].pid, "clientapp")), "a participant at work")

    def platform(self) -> psutil.Process:
        """Return the process of the platform."""
        return _wait(lambda: _apps((self.executor or self.link).pid, "serverapp"), "the platform")[
            0
        ]

    def until_planned(self) -> None:
        """Wait until the plan is made: who comes now comes late."""
        _wait((self.out / "state" / "plan.json").exists, "a plan", self.said)

    def until_aligned(self, count: int = 3) -> None:
        """Wait until the alignments are stored, so that the next messages ask for targets."""
        folder = self.out / "state" / "alignments"
        _wait(lambda: folder.exists() and len(times(folder)) >= count, "alignments", self.said)

    def until_blocks(self, count: int) -> None:
        """Wait until that many blocks are stored."""
        folder = self.out / "state" / "blocks"
        _wait(lambda: folder.exists() and len(times(folder)) >= count, "blocks", self.said)

    def changes(self) -> list[dict[str, Any]]:
        """Return what the provenance says of changes of the plan."""
        provenance = json.loads((self.out / "dataset" / "provenance.json").read_text())
        changes: list[dict[str, Any]] = provenance["plan_changes"]
        return changes


def _apps(pid: int, word: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if any(word in Path(part).name for part in process.cmdline()[:3]):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _killed(processes: list[psutil.Process]) -> bool:
    """Kill the first process that is still there; return whether there was one."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
            return True
    return False


def _wait(
    until: Callable[[], Any], what: str, said: Callable[[], str] = str, seconds: float = SECONDS
) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < deadline, f"waited for {what} in vain\n{said()}"
        time.sleep(0.1)
    return found
