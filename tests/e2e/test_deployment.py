"""docs/deployment.md: every command block is executed, as it stands there, on loopback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import coopt_fl
from tests.e2e.conftest import TINY, Shell, free_port
from tests.e2e.hosts import Hosts, settle

pytestmark = [pytest.mark.e2e, pytest.mark.network]

PRIORS = {"alpha": "trivial:24", "beta": "trivial:32"}
"""Every participant says in its --node-config which prior it has; the configuration does not."""


@pytest.fixture
def roster(tmp_path: Path) -> str:
    """The path of a tiny configuration with the participants of PRIORS."""
    path = tmp_path / "tiny.yaml"
    participants = [{"name": name, "prior": prior} for name, prior in PRIORS.items()]
    path.write_text(yaml.safe_dump(TINY | {"participants": participants}))
    return str(path)


@pytest.fixture
def hosts(tmp_path: Path, roster: str) -> Iterator[Hosts]:
    """The runbook's hosts. There is no nginx here: participants reach the SuperLink itself."""
    instead = {"config='digits'": f"config='{roster}'", "/srv/images": str(tmp_path)}
    hosts = settle(tmp_path / "hosts", instead, free_port())
    superlink = hosts.instead["127.0.0.1:8000"]
    yield Hosts(hosts.folder, hosts.instead | {"platform.example.org:443": superlink})
    hosts.kill()


def test_the_runbook_makes_the_dataset_of_coopt_run(
    hosts: Hosts, shell: Shell, roster: str
) -> None:
    people = [hosts.of(name, **{"open_clip:RN50/openai": PRIORS[name]}) for name in PRIORS]
    hosts.section(1)
    hosts.section(2)
    hosts.section(3)
    for section in (4, 5, 6):
        for participant in people:
            participant.section(section)
    hosts.section(7)
    out = hosts.folder / "var" / "runs" / "digits"
    deployed = json.loads((out / "summary.json").read_text())
    hosts.section(8)
    hosts.section(9)

    seed = f"seed={int((hosts.folder / 'var' / 'digits.seed').read_text())}"
    simulated = shell.summary("run", roster, seed, "--out", str(shell.folder / "simulated"))
    assert deployed["dataset"]["digest"] == simulated["dataset"]["digest"]
    assert deployed["reference"] == simulated["reference"]
    here, there = coopt_fl.load(out), coopt_fl.load(shell.folder / "simulated")
    assert here.ids.tolist() == there.ids.tolist()
    for name in PRIORS:
        assert hosts.log(f"coopt-supernode@{name}").count("Receiving: train.optimize") == 1
