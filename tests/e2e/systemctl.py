"""As much of systemctl as docs/deployment.md needs: services are started and stopped, not watched.

Nothing is done by ``daemon-reload``, and by ``reload`` of what never ran.

``python systemctl.py FOLDER VERB [--now] [UNIT ...]``: FOLDER holds the units; each gets a log and
a file with its process id there.
"""

import os
import shlex
import signal
import string
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PATIENCE = 20.0
PASSED = ("HOME", "PYTHONPATH")


def main(folder: Path, verb: str, *arguments: str) -> None:
    """Do ``verb`` to every unit."""
    for unit in (argument for argument in arguments if not argument.startswith("--")):
        if verb in ("stop", "restart"):
            stop(folder, unit)
        if verb in ("start", "restart", "enable"):
            start(folder, unit)
        if verb == "reload" and (folder / f"{unit}.pid").exists():
            os.kill(int((folder / f"{unit}.pid").read_text()), signal.SIGHUP)


def start(folder: Path, unit: str) -> None:
    """Start a service with the unit's environment and no more of this process's than PASSED."""
    service = _options(folder, unit)
    files = [Path(file).read_text() for file in service.get("EnvironmentFile", [])]
    env = {name: os.environ[name] for name in PASSED if name in os.environ}
    for text in [*service["Environment"], *files]:
        env |= dict(word.split("=", 1) for word in shlex.split(text))
    words = shlex.split(service["ExecStart"][0])
    process = subprocess.Popen(
        [string.Template(word).substitute(env) for word in words],
        cwd=service["WorkingDirectory"][0],
        env=env,
        stdout=(folder / f"{unit}.log").open("a"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    (folder / f"{unit}.pid").write_text(str(process.pid))


def stop(folder: Path, unit: str) -> None:
    """SIGTERM a service and wait for its end; SIGKILL what is left of it."""
    pid = int((folder / f"{unit}.pid").read_text())
    until = time.monotonic() + PATIENCE
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < until:
            os.kill(pid, 0)
            time.sleep(0.1)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _options(folder: Path, unit: str) -> dict[str, list[str]]:
    """Return the values of every option of a unit; ``NAME@INSTANCE`` is made of ``NAME@``."""
    name, at, instance = unit.partition("@")
    text = (folder / f"{name}{at}.service").read_text()
    options: dict[str, list[str]] = {}
    for line in text.replace("\\\n", " ").replace("%i", instance).splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            options.setdefault(key, []).append(value)
    return options


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
