"""The hosts of docs/deployment.md, all of them on this one and in one folder."""

import os
import pwd
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tests.e2e.conftest import ROOT, SECONDS, checkout, free_port, kill_session
from tests.e2e.nginx import find_nginx
from tests.fenced import fenced

DOCS = ROOT / "docs"


@dataclass(frozen=True)
class Hosts:
    """Does what the runbook says, with folders, ports and names replaced by ``instead``.

    Args:
        folder: everything that is written goes below it.
        instead: what stands in the documents, and what stands for it here.
    """

    folder: Path
    instead: dict[str, str]

    def section(self, number: int) -> None:
        """Run the ``bash`` blocks of a section of the runbook, each of which must succeed."""
        for block in self.blocks(number):
            done = self.bash(block)
            assert done.returncode == 0, f"{self.local(block)}\n{done.stdout}\n{done.stderr}"

    def blocks(self, number: int) -> list[str]:
        """Return the ``bash`` blocks of a section of the runbook, as they stand there."""
        return _blocks()[number]

    def of(self, name: str) -> "Hosts":
        """Return the platform's host for a reader whose participant is not alpha."""
        return replace(self, instead=self.instead | {"alpha": name})

    def participant(self, name: str, **instead: str) -> "Hosts":
        """Return the host of a participant: an /etc/coopt of its own, the rest is shared."""
        own = {
            "alpha": name,
            "9101": str(free_port()),
            "/etc/coopt": str(self.folder / name),
            "platform.example.org:/etc/coopt": f"platform.example.org:{self.folder / 'etc'}",
        }
        return replace(self, instead=self.instead | own | instead)

    def local(self, text: str) -> str:
        """Return ``text`` with everything replaced, longer names first, nothing twice."""
        names = sorted(self.instead, key=len, reverse=True)
        pattern = "|".join(map(re.escape, names))
        return re.sub(pattern, lambda found: self.instead[found[0]], text)

    def bash(self, block: str) -> subprocess.CompletedProcess[str]:
        """Run a block as if typed into one shell after all others, up to its first failure."""
        exports = self.folder / "exports"
        script = f". {exports}; set -euo pipefail\n{self.local(block)}\nexport -p > {exports}"
        return subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def export(self, values: dict[str, str]) -> None:
        """Set what all blocks, and the services that they start, find in their environment."""
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in values.items()]
        (self.folder / "exports").write_text("".join(lines))

    @property
    def env(self) -> dict[str, str]:
        """A new shell's environment: another HOME, and our own ``systemctl`` first on the PATH."""
        inherited = {key: value for key, value in os.environ.items() if key[:5] != "FLWR_"}
        return inherited | {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def log(self, unit: str) -> str:
        """Return what a service has said so far."""
        text = (self.folder / "systemd" / f"{unit}.log").read_text(errors="replace")
        return re.sub(r"\x1b\[[0-9;]*m", "", text)

    def kill(self) -> None:
        """Kill every service that is still running."""
        for file in (self.folder / "systemd").glob("*.pid"):
            kill_session(int(file.read_text()))


def settle(folder: Path, instead: dict[str, str]) -> Hosts:
    """Lay out the hosts in ``folder``; without nginx, participants reach the SuperLink itself."""
    for place in ("bin", "deployment", "etc", "home", "nginx", "systemd", "var"):
        (folder / place).mkdir(parents=True)
    (folder / "exports").write_text("")
    superlink, public = str(free_port()), str(free_port())
    nginx, program = folder / "nginx", find_nginx()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {nginx / kind};" for kind in kinds)
    instead = {
        "/opt/coopt/src": str(checkout(folder / "checkout")),
        "/opt/coopt/src/docs/deployment": str(folder / "deployment"),
        "/opt/coopt/bin": str(Path(sys.executable).parent),
        "/etc/coopt": str(folder / "etc"),
        "/etc/systemd/system": str(folder / "systemd"),
        "/var/lib/coopt": str(folder / "var"),
        "127.0.0.1:8000": f"127.0.0.1:{superlink}",
        "--port 8000": f"--port {superlink}",
        "platform.example.org:443": f"127.0.0.1:{public if program else superlink}",
        "listen 443": f"listen 127.0.0.1:{public}",
        "user www-data;": f"user {pwd.getpwuid(os.getuid()).pw_name};",
        "/run/nginx.pid": str(nginx / "pid"),
        "/etc/nginx": str(nginx),
        "/var/log/nginx": str(nginx),
        "http {": f"http {{ {temporary}",
        **instead,
    }
    hosts = Hosts(folder, instead)
    for file in (DOCS / "deployment").iterdir():
        reader = hosts.participant("%i") if "@" in file.name else hosts
        (folder / "deployment" / file.name).write_text(reader.local(file.read_text()))
    systemctl = Path(__file__).with_name("systemctl.py")
    _script(hosts, "systemctl", f'exec {sys.executable} {systemctl} {folder / "systemd"} "$@"')
    _script(hosts, "scp", 'exec cp "${1#*:}" "${2#*:}"')
    if program:
        _install_nginx(hosts, program)
    return hosts


def _install_nginx(hosts: Hosts, program: str) -> None:
    """Do what ``apt-get install nginx`` does: a service is running, with nothing to serve."""
    nginx, unit = hosts.folder / "nginx", hosts.folder / "systemd" / "nginx.service"
    (nginx / "nginx.conf").write_text(f"pid {nginx / 'pid'}; events {{}}\n")
    options = f"-p {nginx} -e {nginx / 'start.log'} -c {nginx / 'nginx.conf'}"
    _script(hosts, "nginx", f'exec {program} {options} "$@"')
    service = f"ExecStart={hosts.folder / 'bin' / 'nginx'} -g 'daemon off;'"
    unit.write_text(f"WorkingDirectory={nginx}\nEnvironment=PATH=/usr/bin:/bin\n{service}\n")
    done = hosts.bash("systemctl start nginx")
    assert done.returncode == 0, done.stderr


def _script(hosts: Hosts, name: str, line: str) -> None:
    """Write a program that stands in for the system's own."""
    path = hosts.folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def _blocks() -> dict[int, list[str]]:
    """Return the ``bash`` blocks of the runbook's sections."""
    text = (DOCS / "deployment.md").read_text()
    sections = re.findall(r"^## (\d+)\. .*?$(.*?)(?=^## |\Z)", text, re.M | re.S)
    found = {int(number): [block for _, block in fenced(body, "bash")] for number, body in sections}
    assert sum(map(len, found.values())) == len(fenced(text, "bash"))
    return found
