"""docs/deployment.md: every command block is executed, as it stands there, on loopback."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import coopt_fl
from coopt_fl.config.load import load_config
from tests.e2e.conftest import SECONDS, TINY, times
from tests.e2e.hosts import Hosts, settle
from tests.e2e.network import IMPATIENT
from tests.e2e.nginx import find_nginx
from tests.e2e.site import enrol
from tests.flower.conftest import identity as identity
from tests.flower.conftest import quick as quick
from tests.flower.grid import run_platform

pytestmark = pytest.mark.xdist_group("site")

PRIORS = {"alpha": "trivial:24", "beta": "trivial:32"}
"""Every participant says in its --node-config which prior it has; the configuration does not."""

CHUNKS = "optimize.chunk_mb=0.006"
"""Of 8 or 9 of the 30 blocks: each participant is asked for targets twice."""


@pytest.fixture
def roster(tmp_path: Path) -> str:
    """The path of a tiny configuration with the participants of PRIORS."""
    path = tmp_path / "tiny.yaml"
    participants = [{"name": name, "prior": prior} for name, prior in PRIORS.items()]
    path.write_text(yaml.safe_dump(TINY | {"participants": participants}))
    return str(path)


@pytest.fixture
def hosts(tmp_path: Path, roster: str) -> Iterator[Hosts]:
    """The runbook's hosts."""
    instead = {
        "config='digits'": f"config='{roster}'",
        "optimize.chunk_mb=32": CHUNKS,
    }
    hosts = settle(tmp_path / "hosts", instead)
    hosts.export(IMPATIENT)
    yield hosts
    hosts.kill()


def test_the_runbook_makes_the_dataset_of_an_undisturbed_run(
    hosts: Hosts, roster: str, tmp_path: Path, identity: None
) -> None:
    """Sections 1 to 6; a run that is broken off; renewal and upgrade; section 9 completes it."""
    hosts.section(1)
    hosts.section(2)
    if find_nginx():
        hosts.section(3)
    for name, prior in PRIORS.items():
        own = f'name="{name}" prior="{prior}" data-root="{tmp_path}"'
        enrol(hosts, hosts.participant(name, **{'name="alpha"': own}))
    out = hosts.folder / "var" / "runs" / "digits"
    draw_seed, run = hosts.blocks(7)
    assert hosts.bash(draw_seed).returncode == 0
    broken = broken_off(hosts, run, out / "state" / "blocks")
    assert broken.returncode != 0, "coopt inspect says that there is no dataset"
    before = times(out / "state" / "blocks")
    assert 0 < len(before) < 30
    units = " ".join(f"coopt-supernode@{name}" for name in PRIORS)
    replace(hosts, instead=hosts.instead | {"coopt-supernode@alpha": units}).section(8)
    hosts.section(9)
    after = times(out / "state" / "blocks")
    assert {name: after[name] for name in before} == before

    deployed = json.loads((out / "summary.json").read_text())
    seed = f"seed={int((hosts.folder / 'var' / 'digits.seed').read_text())}"
    run_platform(load_config(roster, [seed]), tmp_path / "whole")
    here, there = coopt_fl.load(out), coopt_fl.load(tmp_path / "whole")
    assert deployed["dataset"]["digest"] == here.digest == there.digest
    assert deployed["reference"] == there.provenance.reference
    assert here.ids.tolist() == there.ids.tolist()
    if find_nginx():
        log = (hosts.folder / "nginx" / "access.log").read_text()
        for call in ("push-object", "pull-object", "push-messages"):
            assert re.search(f'"POST /v1/fleet/{call} HTTP/1.1" 200', log), call


def broken_off(hosts: Hosts, run: str, blocks: Path) -> subprocess.CompletedProcess[str]:
    """Run a block of the runbook; stop coopt-superexec as soon as something is in ``blocks``."""
    with ThreadPoolExecutor() as pool:
        typed = pool.submit(hosts.bash, run)
        until = time.monotonic() + SECONDS
        while not (blocks.exists() and times(blocks)) and not typed.done():
            assert time.monotonic() < until
            time.sleep(0.1)
        stopped = hosts.bash("systemctl stop coopt-superexec")
        assert stopped.returncode == 0, stopped.stderr
        return typed.result()
