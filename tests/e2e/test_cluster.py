"""A simulation on a Ray cluster that runs already, and beside one that it has nothing to do with."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from coopt_fl.core.errors import ConfigError
from tests.e2e.conftest import Shell, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("ray")]

ELSEWHERE = """
import os
import numpy as np
import coopt_fl

@coopt_fl.register.prior("elsewhere")
def elsewhere(name, device):
    raise NotImplementedError
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A head without a core to work on, and a second host, as far as a folder of its own goes."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "gcs_server_port": free_port()},
    )
    (tmp_path / "elsewhere").mkdir()
    cluster.add_node(num_cpus=1, env_vars={"TMPDIR": str(tmp_path / "elsewhere")})
    yield cluster
    cluster.shutdown()


def test_a_cluster_is_joined_only_where_it_is_named(
    cluster: Cluster, shell: Shell, tiny: str
) -> None:
    """Payloads then come in the replies, for participants may be on other hosts."""
    shell.extra["RAY_ADDRESS"] = cluster.address
    alone = shell.summary("run", tiny, "data.limit=200", "--out", str(shell.folder / "alone"))
    joined = shell.summary(
        "run", tiny, "data.limit=200", f"simulation.address={cluster.address}",
        "--out", str(shell.folder / "joined"),
    )  # fmt: skip
    assert joined["dataset"]["digest"] == alone["dataset"]["digest"]
    assert _logged(shell.folder / "alone", "payloads come by") == ["OnHost"]
    assert _logged(shell.folder / "joined", "payloads come by") == ["InReplies"]
    for name, kinds in (("alone", {".npz", ".rows"}), ("joined", {".npz"})):
        state = shell.folder / name / "state"
        assert {path.suffix for path in (state / "blocks").iterdir()} == kinds
        assert not (state / "arriving").exists()
