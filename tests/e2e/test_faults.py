"""A deployment in which processes are killed: it ends with the dataset of an undisturbed run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import coopt_fl
from coopt_fl.optimized.reader import OptimizedDataset
from coopt_fl.optimized.verify import verify
from tests.e2e.conftest import TINY, Shell, free_port, times
from tests.e2e.network import Network

pytestmark = [pytest.mark.e2e, pytest.mark.faults]

FEW = "optimize.chunk_mb=0.02 data.limit=1800 deadline.rejoin=10"
"""Chunks of 30 blocks of 20: each participant is asked for targets once or twice."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> OptimizedDataset:
    """The dataset of the same run without faults, simulated."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    shell = Shell(folder, free_port())
    shell.summary("run", str(folder / "tiny.yaml"), *FEW.split(), "--out", str(folder / "run"))
    return coopt_fl.load(folder / "run")


@pytest.fixture
def network(shell: Shell, tiny: str) -> Iterator[Network]:
    network = Network(shell, tiny, FEW)
    network.join("alpha", "beta", "gamma")
    yield network


def same(network: Network, whole: OptimizedDataset) -> None:
    """The digest is that of the undisturbed run, and nothing moved."""
    assert verify(network.out / "dataset")[1] == []
    assert coopt_fl.load(network.out).digest == whole.digest
    assert network.changes() == []


def test_a_participant_killed_mid_chunk(network: Network, whole: Any) -> None:
    run = network.submit()
    network.until_aligned()
    network.app_of("beta").kill()
    network.finish(run)
    same(network, whole)


def test_a_supernode_killed_and_started_again(network: Network, whole: Any) -> None:
    run = network.submit("deadline.rejoin=180")
    network.until_aligned()
    network.app_of("beta")
    network.kill("beta")
    network.join("beta")
    network.finish(run)
    same(network, whole)


def test_a_supernode_gone_for_good_and_one_that_comes_late(
    shell: Shell, tiny: str, whole: Any
) -> None:
    """gamma joins when the plan is made; when beta goes, alpha and gamma take over its blocks."""
    network = Network(shell, tiny, f"{FEW} min_participants=2 deadline.join=25")
    network.join("alpha", "beta")
    run = network.submit()
    network.until_aligned(2)
    network.join("gamma")
    network.app_of("beta")
    network.kill("beta")
    network.finish(run)
    (change,) = network.changes()
    assert change["origin"] == "beta"
    assert set(change["owners"]) == {"alpha", "gamma"}
    provenance, problems = verify(network.out / "dataset")
    assert problems == []
    assert [one.name for one in provenance.contributors] == ["alpha", "beta", "gamma"]
    dataset = coopt_fl.load(network.out)
    assert np.array_equal(np.sort(dataset.ids), np.sort(whole.ids))


def test_the_platform_killed_and_started_again(network: Network, whole: Any) -> None:
    first = network.submit()
    network.until_blocks(20)
    network.platform().kill()
    before = times(network.out / "state" / "blocks")
    first.kill()
    network.finish(network.submit())
    after = times(network.out / "state" / "blocks")
    assert {name: after[name] for name in before} == before
    same(network, whole)


def test_the_superlink_killed_and_started_again(network: Network, whole: Any) -> None:
    """The platform ends with it; SuperNodes connect again, and the next run completes it."""
    first = network.submit()
    network.until_aligned()
    link = Path(network.shell.folder)
    network.platform()
    from tests.e2e.conftest import kill_session

    kill_session(network.link.pid)
    first.wait(120)
    assert link.exists()
    network.link = network.start_link()
    network.finish(network.submit("deadline.join=300"))
    same(network, whole)
