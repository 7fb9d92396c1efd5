"""A deployment in which processes are killed: it ends with the dataset of an undisturbed run."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coopt_fl
from coopt_fl.config.load import from_tree
from coopt_fl.optimized.read import OptimizedDataset
from coopt_fl.optimized.verify import verify
from tests.e2e.conftest import SECONDS, TINY, Shell, kill_session, times, written
from tests.e2e.network import Network
from tests.flower.conftest import identity as identity
from tests.flower.conftest import quick as quick
from tests.flower.grid import run_platform

LINK = pytest.mark.xdist_group("superlink")
NODES = pytest.mark.xdist_group("supernodes")

FEW = "optimize.chunk_mb=0.04 data.limit=1800 deadline.rejoin=10"
"""90 blocks in chunks of up to 60: each participant is asked for targets once, if all goes well."""

PAIR = TINY | {"participants": TINY["participants"][:2]}
"""Each participant costs a run some five processes; three are needed where two take over."""


@pytest.fixture
def whole(tmp_path: Path, identity: None) -> OptimizedDataset:
    """The dataset of the same run without faults, made in this process."""
    out = tmp_path / "whole"
    run_platform(from_tree(deepcopy(PAIR), FEW.split(), "tiny"), out)
    return coopt_fl.load(out)


@pytest.fixture
def pair(tmp_path: Path) -> str:
    """The path of the configuration of two."""
    return written(tmp_path / "pair.yaml", PAIR)


@pytest.fixture
def network(shell: Shell, pair: str) -> Network:
    network = Network(shell, pair, FEW)
    network.join("alpha", "beta")
    return network


def same(network: Network, whole: OptimizedDataset) -> None:
    """The digest is that of the undisturbed run, and nothing moved."""
    assert verify(network.out / "dataset")[1] == []
    assert coopt_fl.load(network.out).digest == whole.digest
    assert network.changes() == []


@NODES
def test_a_supernode_gone_for_good_and_one_that_comes_late(
    shell: Shell, tiny: str, whole: Any
) -> None:
    """gamma joins when the plan is made; when beta goes, alpha and gamma take over its blocks.

    Nobody is taken for gamma whose key is registered for another name.
    """
    network = Network(shell, tiny, f"{FEW} min_participants=2 deadline.join=35")
    network.join("alpha", "beta")
    network.enter("delta", "gamma")
    run = network.submit()
    network.until_planned()
    network.join("gamma")
    network.at_work("beta")
    network.kill("beta")
    network.finish(run)
    said = " ".join(network.said().split())
    assert "it is registered as 'delta' and says that it is 'gamma'" in said
    (change,) = network.changes()
    assert change["origin"] == "beta"
    assert "went offline" in change["reason"]
    assert set(change["owners"]) == {"alpha", "gamma"}
    assert len(change["blocks"]) == 45, "all of beta's: it was killed before it answered"
    provenance, problems = verify(network.out / "dataset")
    assert problems == []
    assert [one.name for one in provenance.contributors] == ["alpha", "beta", "gamma"]
    dataset = coopt_fl.load(network.out)
    assert np.array_equal(np.sort(dataset.ids), np.sort(whole.ids))


@LINK
def test_a_superlink_a_participant_and_a_supernode_killed(network: Network, whole: Any) -> None:
    """One after another, and always while beta works on targets.

    The platform ends with the SuperLink; SuperNodes connect again, and the next run completes it.
    Whether the platform has missed the SuperNode before it is back or not.
    """
    first = network.submit()
    network.at_work("beta")
    kill_session(network.link.pid)
    first.wait(SECONDS)
    assert not network.published()
    before = times(network.out / "state" / "alignments")
    stored = times(network.out / "state" / "blocks")
    network.link = network.start_link()
    run = network.submit("deadline.join=300 deadline.rejoin=300")
    network.at_work("beta", 2).kill()
    network.at_work("beta", 3)
    network.kill("beta")
    network.join("beta")
    network.finish(run)
    assert network.asked_for_targets("beta") >= 4
    assert "[code: 2004] Failed to activate SuperNode" in network.log("beta")
    assert times(network.out / "state" / "alignments") == before
    assert stored.items() <= times(network.out / "state" / "blocks").items()
    same(network, whole)


@LINK
def test_a_run_goes_on_when_the_superlink_is_back(shell: Shell, pair: str, whole: Any) -> None:
    """As docs/deployment.md has it, the platform's program is not the SuperLink's child."""
    network = Network(shell, pair, f"{FEW} deadline.rejoin=180", apart=True)
    network.join("alpha", "beta")
    network.submit()
    network.at_work("beta")
    platform = network.platform()
    kill_session(network.link.pid)
    assert not network.published()
    before = times(network.out / "state" / "alignments")
    network.link = network.start_link()
    network.until_published()
    assert platform.is_running()
    assert times(network.out / "state" / "alignments") == before
    same(network, whole)
