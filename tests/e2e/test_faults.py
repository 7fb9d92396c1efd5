"""A deployment in which all but the platform is killed, and that ends with a whole dataset."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

import coopt_fl
from coopt_fl.config.load import from_tree
from coopt_fl.optimized.read import OptimizedDataset
from coopt_fl.optimized.verify import verify
from tests.e2e.conftest import TINY, Shell, kill_session, times
from tests.e2e.network import Network
from tests.flower.conftest import identity as identity
from tests.flower.conftest import quick as quick
from tests.flower.grid import run_platform

WHOLE = "optimize.chunk_mb=0.04"
"""Up to 60 blocks at once: each participant is asked for targets once, if all goes well."""


@pytest.fixture
def undisturbed(tmp_path: Path, identity: None) -> OptimizedDataset:
    """The dataset of alpha and beta alone without faults, made in this process."""
    pair = TINY | {"participants": TINY["participants"][:2]}
    run_platform(from_tree(deepcopy(pair), [WHOLE], "pair"), tmp_path / "undisturbed")
    return coopt_fl.load(tmp_path / "undisturbed")


@pytest.mark.xdist_group("faults")
def test_a_participant_a_supernode_and_the_superlink_killed(
    shell: Shell, tiny: str, undisturbed: OptimizedDataset
) -> None:
    """One after another in one run, and always while beta works on targets.

    With the SuperLink beta goes for good: after three requests that came to nothing, alpha takes
    over, and gamma, which joined when the plan was made. Nobody is taken for gamma whose key is
    registered for another name.
    """
    network = Network(shell, tiny, f"{WHOLE} min_participants=2 deadline.join=35")
    network.join("alpha", "beta")
    network.enter("delta", "gamma")
    network.submit()
    network.until_planned()
    network.kill("gamma")  # delta's, which has been refused
    network.join("gamma")

    network.at_work("beta").kill()
    network.at_work("beta", 2)
    network.kill("beta")
    network.join("beta")
    network.at_work("beta", 3)
    assert "[code: 2004] Failed to activate SuperNode" in network.log("beta")
    said = " ".join(network.said().split())
    assert "it is registered as 'delta' and says that it is 'gamma'" in said
    platform, alignments = network.platform(), network.out / "state" / "alignments"
    before = times(alignments)
    kill_session(network.link.pid)
    network.kill("beta")
    assert not network.published()
    network.link = network.start_link()
    network.until_published()
    assert platform.is_running()
    assert before.items() <= times(alignments).items()

    (change,) = network.changes()
    assert change["origin"] == "beta"
    assert "went offline" in change["reason"]
    assert set(change["owners"]) == {"alpha", "gamma"}
    assert len(change["blocks"]) == 15, "all of beta's: it was killed before it answered"
    provenance, problems = verify(network.out / "dataset")
    assert problems == []
    assert [one.name for one in provenance.contributors] == ["alpha", "beta", "gamma"]
    dataset = coopt_fl.load(network.out)
    order, expected = np.argsort(dataset.ids), np.argsort(undisturbed.ids)
    assert np.array_equal(dataset.ids[order], undisturbed.ids[expected])
    alphas = undisturbed.participants[expected] == 0
    assert alphas.sum() == 300
    assert np.array_equal(dataset.targets[order][alphas], undisturbed.targets[expected][alphas])
