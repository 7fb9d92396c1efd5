"""A simulation on a Ray cluster that runs already."""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

import coopt_fl
from coopt_fl.config.load import from_tree
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.progress import console_progress
from coopt_fl.federation.simulation import simulate
from tests.e2e.conftest import TINY, Shell, free_port
from tests.flower.conftest import identity as identity
from tests.flower.conftest import quick as quick
from tests.flower.grid import run_platform

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("ray")]

WHERE = """
import json, os, sys, tempfile
from pathlib import Path
from torch import nn
import coopt_fl


@coopt_fl.register.prior("where", form="where:SIDE")
def where(spec):
    \"\"\"Pools, and writes down where it does.\"\"\"
    if Path(sys.argv[0]).name == "default_worker.py":
        seen = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "temporary": tempfile.gettempdir(),
                "cores": os.environ.get("LOKY_MAX_CPU_COUNT")}
        (Path(__file__).parent / f"{os.getpid()}.json").write_text(json.dumps(seen))
    model = nn.Sequential(nn.AdaptiveAvgPool2d(int(spec.name)), nn.Flatten())
    return model, coopt_fl.Preprocess(8, 8, "bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A head without a core for participants, and a host with a temporary folder of its own.

    It declares two GPUs, which need not be there.
    """
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "gcs_server_port": free_port()}
    )
    (tmp_path / "elsewhere").mkdir()
    cluster.add_node(num_cpus=2, num_gpus=2, env_vars={"TMPDIR": str(tmp_path / "elsewhere")})
    yield cluster
    cluster.shutdown()


def test_a_cluster_is_joined_where_it_is_named(
    cluster: Cluster, shell: Shell, tiny: str, identity: None
) -> None:
    """Its participants may be on other hosts, so payloads come in replies; each has its own GPU.

    To the digest of a run in this process. ``made`` joins none that RAY_ADDRESS alone names.
    """
    plugin = shell.folder / "where.py"
    plugin.write_text(WHERE)
    chosen = ["data.limit=200", f"plugins=[{plugin}]"]
    chosen += [f"participants.{k}.prior=where:{side}" for k, side in enumerate((3, 4, 5))]
    out = shell.folder / "out"
    joined = (*chosen, f"simulation.address={cluster.address}", "--out", str(out))
    summary = shell.summary("run", tiny, *joined)
    assert (out / "state" / "log.txt").read_text().count("payloads come by InReplies") == 1
    assert {path.suffix for path in (out / "state" / "blocks").iterdir()} == {".npz"}
    assert not (out / "state" / "arriving").exists()
    run_platform(from_tree(deepcopy(TINY), chosen, "tiny"), shell.folder / "whole")
    assert summary["dataset"]["digest"] == coopt_fl.load(shell.folder / "whole").digest
    there = [json.loads(path.read_text()) for path in shell.folder.glob("*.json")]
    assert {one["temporary"] for one in there} == {str(shell.folder / "elsewhere")}
    assert sorted(one["gpu"] for one in there) == ["0", "1"]
    assert {one["cores"] for one in there} == {"1"}


def test_an_address_where_nothing_answers_is_refused_at_once(tmp_path: Path) -> None:
    nowhere = f"simulation.address=127.0.0.1:{free_port()}"
    config = from_tree(deepcopy(TINY), [nowhere], "tiny")
    with (
        console_progress("quiet") as progress,
        pytest.raises(ConfigError, match="cannot be joined"),
    ):
        simulate(config, tmp_path / "out", progress)
