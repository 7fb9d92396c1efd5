"""A platform behind nginx, as docs/deployment.md has it, and those who want to reach it."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coopt_fl.ops.certificates import make_certificate, make_key_pair
from tests.e2e.conftest import free_port
from tests.e2e.hosts import Hosts, settle
from tests.e2e.nginx import find_nginx

REFUSED = {
    "an unregistered key": "[code: 2004] Failed to activate SuperNode",
    "no key": "[code: 2001] SuperNode authentication is enabled",
    "a wrong CA": "CERTIFICATE_VERIFY_FAILED",
    "the system's CAs": "CERTIFICATE_VERIFY_FAILED",
    "plain text": "400 Bad Request",
    "plain text with a key": "Exit Code: 303",
}
"""SuperNodes that must be refused, and what each says before it ends with exit code 1."""

DIRECT = ("an unregistered key", "no key", "a wrong CA")
"""Those of them that the SuperLink itself must refuse; to plain text it gives no answer."""

ECHO = """
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()


def pack(values):
    return RecordDict({"arrays": ArrayRecord({"values": Array(values)})})


@client.query()
def add_one(message, context):
    return Message(pack(message.content["arrays"]["values"].numpy() + 1), reply_to=message)


@server.main()
def main(grid, context):
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(1)
    values = np.arange(5_000_000, dtype=np.float32)
    question = Message(pack(values), dst_node_id=nodes[0], message_type="query")
    (reply,) = grid.send_and_receive([question])
    right = np.array_equal(reply.content["arrays"]["values"].numpy(), values + 1)
    Path(context.run_config["out"]).write_text(f"{len(nodes)} node, right: {right}")
"""
"""An app that sends 20 MB to a SuperNode and gets 20 MB back, in pieces of 5 MiB."""

PYPROJECT = """
[project]
name = "echo"
version = "1.0.0"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "echo:server"
clientapp = "echo:client"
[tool.flwr.app.config]
out = ""
"""


@dataclass(frozen=True)
class Site:
    """The runbook's platform and participant alpha, nginx between them, and who else calls.

    ``callers`` call where participants do, ``neighbours`` the SuperLink itself.
    """

    hosts: Hosts
    callers: dict[str, subprocess.Popen[str]]
    neighbours: dict[str, subprocess.Popen[str]]

    @property
    def ca(self) -> bytes:
        return (self.hosts.folder / "etc" / "ca.crt").read_bytes()

    @property
    def address(self) -> str:
        return self.hosts.instead["platform.example.org:443"]

    @property
    def superlink(self) -> str:
        return self.hosts.instead["127.0.0.1:8000"]

    @property
    def passed(self) -> set[str]:
        """The paths that nginx has passed on: it names callers, and the SuperLink their port 0.

        Those that the SuperLink answers without success, and all of the Control API; it does not
        log the others, which are frequent.
        """
        log = self.hosts.log("coopt-superlink")
        return set(re.findall(r'127\.0\.0\.1:0 - "\S+ (\S+) ', log))


@contextmanager
def opened(folder: Path) -> Iterator[Site]:
    """Build up a site in ``folder`` by the runbook; whatever runs is killed at the end.

    Where there is no nginx, nobody calls it.
    """
    hosts = settle(folder, {})
    alpha = hosts.participant("alpha")
    site = Site(hosts, {}, {})
    try:
        hosts.section(1)
        hosts.section(2)
        make_key_pair(folder / "stranger")
        make_certificate(["platform.example.org"], folder / "other")
        site.neighbours.update({name: _call(hosts, name, site.superlink) for name in DIRECT})
        if find_nginx():
            hosts.section(3)
            site.callers.update({name: _call(hosts, name, site.address) for name in REFUSED})
        enrol(hosts, alpha)
        yield site
    finally:
        for process in (*site.callers.values(), *site.neighbours.values()):
            process.kill()
        hosts.kill()


def enrol(platform: Hosts, participant: Hosts) -> None:
    """Do what makes a participant one: a key, its registration, a SuperNode."""
    participant.section(1)
    participant.section(4)
    platform.of(participant.instead["alpha"]).section(5)
    participant.section(6)


def _call(hosts: Hosts, name: str, address: str) -> subprocess.Popen[str]:
    """Start a SuperNode that must be refused; its output goes to ``name at address.log``."""
    folder = hosts.folder
    key = ("--auth-supernode-private-key", str(folder / "stranger"))
    ours = ("--root-certificates", str(folder / "etc" / "ca.crt"))
    theirs = ("--root-certificates", str(folder / "other" / "ca.crt"))
    plain = ("--insecure",)
    options = ((*ours, *key), ours, (*theirs, *key), key, plain, (*plain, *key))
    own = dict(zip(REFUSED, options, strict=True))[name]
    program = f"{hosts.instead['/opt/coopt/bin']}/flower-supernode"
    command = (program, "--superlink", address, "--port", str(free_port()), *own)
    log = (folder / f"{name} at {address}.log").open("w")
    path = f"{hosts.instead['/opt/coopt/bin']}{os.pathsep}{hosts.env['PATH']}"
    env = hosts.env | {"PATH": path}
    return subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, text=True)
