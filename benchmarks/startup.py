"""From the command to the first useful work, over importing torch, which nothing can avoid."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.timing import spread

REPEATS = 3
TINY = (
    "data.source=synthetic",
    "data.limit=64",
    "shared.size=16",
    "targets.dim=4",
    "participants.0.prior=trivial:8",
    "participants.1.prior=trivial:8",
    "participants.2.prior=trivial:8",
)
COMMANDS = {
    "coopt --help": ("--help",),
    "coopt config": ("config", "digits"),
    "coopt run until the plan": ("run", "digits", *TINY),
}


def measure() -> dict[str, Any]:
    """Return seconds of each command and their multiple of ``import torch``."""
    found: dict[str, Any] = {}
    for name, arguments in COMMANDS.items():
        pairs = [(_command(arguments), _import_torch()) for _ in range(REPEATS)]
        found[name] = {
            "seconds": spread([pair[0] for pair in pairs]),
            "times import torch": spread([pair[0] / pair[1] for pair in pairs]),
        }
    return found


def _import_torch() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - started


def _command(arguments: tuple[str, ...]) -> float:
    """Return the seconds until the command ended, or, for a run, made its plan."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "coopt_fl", *arguments]
        plan = Path(folder) / "run" / "state" / "plan.json"
        if arguments[0] == "run":
            command += ["--out", str(Path(folder) / "run")]
        started = time.perf_counter()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running = subprocess.Popen(command, **quiet)
        while running.poll() is None and not plan.exists():
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        running.wait()
    return seconds
