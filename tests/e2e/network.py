"""The SuperLink and SuperNodes of docs/deployment.md on loopback, without nginx, to be killed."""

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from flwr.cli.supernode.register import try_load_public_key
from flwr.proto.control_pb2 import RegisterNodeRequest
from flwr.supercore.control import ControlHttpClient

from coopt_fl.ops.certificates import make_certificate, make_key_pair
from tests.e2e.conftest import SECONDS, Shell, checkout, free_port, kill_session

FOREVER = 'until "$@"; do sleep 15; done'
"""A shell that starts a program again when it fails, as late as the unit in docs/deployment does:
Flower refuses the key of a SuperNode that was killed until it has missed it.
"""

IMPATIENT = {"PYTHONPATH": str(Path(__file__).with_name("impatient"))}
"""Environment in which Flower's programs wait less: for messages, and for who is gone."""


class Network:
    """Participants by name, each with its key, and the platform's run.

    Args:
        shell: runs the programs.
        config: path of the configuration.
        overrides: settings of the run, as in a shell.
    """

    def __init__(self, shell: Shell, config: str, overrides: str) -> None:
        self.shell, self.config, self.overrides = shell, config, overrides
        shell.extra |= IMPATIENT
        self.address = f"127.0.0.1:{free_port()}"
        self.nodes: dict[str, subprocess.Popen[str]] = {}
        self.out = shell.folder / "out"
        self.tls = shell.folder / "tls"
        make_certificate(["localhost"], self.tls)
        self.trusting = ("--root-certificates", str(self.tls / "ca.crt"))
        home = shell.folder / "flwr"
        home.mkdir(exist_ok=True)
        settings = f'address = "{self.address}"\nroot-certificates = "{self.tls / "ca.crt"}"\n'
        (home / "config.toml").write_text(f"[superlink.here]\n{settings}")
        self.link = self.start_link()
        executor = ("flower-superexec", *self.trusting, "--runtime-api-address", self.address)
        self.executor = shell.start(*executor, log="superexec")

    def start_link(self) -> subprocess.Popen[str]:
        """Start the SuperLink on this network's port, with a database that survives it."""
        port = self.address.rpartition(":")[2]
        certificates = {"ca-certfile": "ca.crt", "certfile": "server.pem", "keyfile": "server.key"}
        tls = [f"--ssl-{option}={self.tls / file}" for option, file in certificates.items()]
        database = ("--database", str(self.shell.folder / "link.db"))
        options = ("--isolation", "process", "--enable-supernode-auth")
        command = ("flower-superlink", "--port", port, *tls, *options, *database)
        return self.shell.start(*command, log=f"superlink-{time.monotonic_ns()}")

    def join(self, *names: str) -> None:
        """Start a SuperNode for each name."""
        for name in names:
            self.enter(name, name)

    def enter(self, registered: str, name: str) -> None:
        """Start one that says that it is ``name``, with the key that is ``registered`` as one."""
        key = self.shell.folder / f"{registered}.key"
        if not key.exists():
            make_key_pair(key)
            self._register(registered, Path(f"{key}.pub"))
        command = ("flower-supernode", "--superlink", self.address, *self.trusting)
        own = ("--port", str(free_port()), "--node-config", f'name="{name}"')
        signed = ("--auth-supernode-private-key", str(key))
        log = f"supernode-{name}-{time.monotonic_ns()}"
        again = ("sh", "-c", FOREVER, name, *command, *own, *signed)
        self.nodes[name] = self.shell.start(*again, log=log)

    def _register(self, name: str, key: Path) -> None:
        _wait(self._listening, "the SuperLink")
        ca = (self.tls / "ca.crt").read_bytes()
        client = ControlHttpClient.from_server_address(self.address, False, ca, ())
        client.RegisterNode(RegisterNodeRequest(public_key=try_load_public_key(key), name=name))

    def kill(self, name: str) -> None:
        """Kill a SuperNode, whatever it has started, and who would start it again."""
        kill_session(self.nodes[name].pid)

    def submit(self) -> None:
        """Start the run."""
        _wait(self._listening, "the SuperLink")
        settings = f"config='{self.config}' out='{self.out}' overrides='{self.overrides}'"
        app = checkout(self.shell.folder / "checkout")
        command = ("flwr", "run", str(app), "here", "--stream", "--run-config", settings)
        self.shell.start(*command, log="run")

    def _listening(self) -> bool:
        host, _, port = self.address.rpartition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def published(self) -> bool:
        """Whether the dataset is complete; what becomes of its student is no matter here."""
        return (self.out / "dataset" / "provenance.json").exists()

    def until_published(self) -> None:
        """Wait for the dataset; ``flwr run`` ends with the SuperLink, even if the run does not."""
        _wait(self.published, "a dataset", self.said)

    def said(self) -> str:
        """Return what the run printed while ``flwr run`` showed it."""
        return (self.shell.folder / "run").read_text()

    def log(self, name: str) -> str:
        """Return what the SuperNodes of ``name`` have said so far."""
        logs = sorted(self.shell.folder.glob(f"supernode-{name}-*"))
        text = "".join(log.read_text(errors="replace") for log in logs)
        return re.sub(r"\x1b\[[0-9;]*m", "", text)

    def asked_for_targets(self, name: str) -> int:
        """Return how many ``train.optimize`` messages the SuperNodes of ``name`` received."""
        return self.log(name).count("Receiving: train.optimize")

    def at_work(self, name: str, times: int = 1) -> psutil.Process:
        """Wait until ``name`` was asked for targets so often; return the process that does it."""
        others = set[psutil.Process]()

        def found() -> psutil.Process | None:
            running = _apps(self.nodes[name].pid, "clientapp")
            if self.asked_for_targets(name) < times:
                others.update(running)  # which work on earlier messages
            return next((app for app in running if app not in others and _has_begun(app)), None)

        process: psutil.Process = _wait(found, f"{name} at work on targets", self.said)
        return process

    def platform(self) -> psutil.Process:
        """Return the process of the platform."""
        process: psutil.Process = _wait(
            lambda: _apps(self.executor.pid, "serverapp"), "the platform"
        )[0]
        return process

    def until_planned(self) -> None:
        """Wait until the plan is made: who comes now comes late."""
        _wait((self.out / "state" / "plan.json").exists, "a plan", self.said)

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


def _has_begun(app: psutil.Process) -> bool:
    """Whether it has loaded our code: if it dies before, Flower starts it again by itself."""
    with suppress(psutil.Error):
        return any("libtorch" in part.path for part in app.memory_maps())
    return False


def _wait(
    until: Callable[[], Any], what: str, said: Callable[[], str] = str, seconds: float = SECONDS
) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < deadline, f"waited for {what} in vain\n{said()[-6000:]}"
        time.sleep(0.2)  # to look through all processes takes a few hundredths
    return found
