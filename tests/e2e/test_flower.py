"""Flower's own command: ``flwr run .`` in simulation, and a SuperLink with three SuperNodes."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ROOT, Shell, free_port

pytestmark = pytest.mark.e2e

SIMULATION = "num-supernodes=3 client-resources-num-cpus=1"
"""The README's federation."""


def test_flwr_run_and_a_deployment_make_the_dataset_of_coopt_run(shell: Shell, tiny: str) -> None:
    wanted = shell.summary("run", tiny, "--out", str(shell.folder / "coopt"))["dataset"]
    _simulate(shell, tiny)
    simulated = _summary(shell.folder / "simulated")
    assert simulated["dataset"]["digest"] == wanted["digest"]

    _deploy(shell, tiny)
    deployed = _summary(shell.folder / "deployed")
    assert deployed["dataset"]["digest"] == wanted["digest"]
    assert [row["name"] for row in deployed["participants"]] == ["alpha", "beta", "gamma"]


def _simulate(shell: Shell, tiny: str) -> None:
    _flwr_run(shell, tiny, "simulated", "--federation-config", SIMULATION)


def _deploy(shell: Shell, tiny: str) -> None:
    """Start a SuperLink and three SuperNodes in another order than the roster, and run on them."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    quick = "--disable-runtime-dependency-installation"
    link = ("flower-superlink", "--insecure", "--port", str(port), quick)
    shell.start(*link, log="superlink")
    for name in ("gamma", "alpha", "beta"):
        node = ("flower-supernode", "--insecure", "--superlink", address)
        own = ("--port", str(free_port()), "--node-config", f'name="{name}"')
        shell.start(*node, *own, log=f"supernode-{name}")
    config = shell.folder / "flwr" / "config.toml"
    known = config.read_text() if config.exists() else ""
    config.parent.mkdir(exist_ok=True)
    config.write_text(f'{known}\n[superlink.here]\naddress = "{address}"\ninsecure = true\n')
    time.sleep(5)
    _flwr_run(shell, tiny, "deployed", "here")


def _flwr_run(shell: Shell, tiny: str, out: str, *arguments: str) -> str:
    """Run the app from the checkout and return what was printed until the run was over."""
    few = "optimize.chunk_mb=1"  # messages: in a deployment each one starts a process
    settings = f"config='{tiny}' out='{shell.folder / out}' overrides='{few}'"
    command = ("flwr", "run", ".", *arguments, "--stream", "--run-config", settings)
    done = shell.run(*command, cwd=ROOT)
    return done.stdout + done.stderr


def _summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found
