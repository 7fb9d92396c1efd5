"""Flower's own command: ``flwr run .`` in simulation."""

import json

import pytest

from tests.e2e.conftest import ROOT, Made, Shell

pytestmark = pytest.mark.xdist_group("ray")

SIMULATION = "num-supernodes=3 client-resources-num-cpus=1"
"""The README's federation."""


def test_flwr_run_makes_the_dataset_of_coopt_run(shell: Shell, tiny: str, made: Made) -> None:
    out = shell.folder / "simulated"
    settings = f"config='{tiny}' out='{out}' overrides='optimize.chunk_mb=1'"
    federation = ("--federation-config", SIMULATION)
    done = shell.run(
        "flwr", "run", ".", *federation, "--stream", "--run-config", settings, cwd=ROOT
    )
    assert (out / "summary.json").exists(), done.stdout + done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["dataset"]["digest"] == made.summary["dataset"]["digest"]
