"""A simulation on a Ray cluster that runs already, and one beside it, which takes no notice."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from tests.e2e.conftest import Shell, free_port

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


def test_a_cluster_is_joined_where_it_is_named_and_only_there(
    cluster: Cluster, shell: Shell, tiny: str
) -> None:
    """Its participants may be on other hosts, so payloads come in replies; each has its own GPU."""
    plugin = shell.folder / "where.py"
    plugin.write_text(WHERE)
    chosen = ["data.limit=200", f"plugins=[{plugin}]"]
    chosen += [f"participants.{k}.prior=where:{side}" for k, side in enumerate((3, 4, 5))]
    shell.extra["RAY_ADDRESS"] = cluster.address

    alone = _run(shell, tiny, "alone", *chosen, "simulation.actors=1")
    assert alone["log"].count("payloads come by OnHost") == 1
    assert {path.suffix for path in alone["blocks"]} == {".npz", ".rows"}
    elsewhere = str(shell.folder / "elsewhere")
    assert elsewhere not in {one["temporary"] for one in _seen(shell.folder)}

    joined = _run(shell, tiny, "joined", *chosen, f"simulation.address={cluster.address}")
    assert joined["log"].count("payloads come by InReplies") == 1
    assert {path.suffix for path in joined["blocks"]} == {".npz"}
    assert joined["digest"] == alone["digest"]
    there = [one for one in _seen(shell.folder) if one["temporary"] == elsewhere]
    assert sorted(one["gpu"] for one in there) == ["0", "1"]
    assert {one["cores"] for one in there} == {"1"}


def test_an_address_where_nothing_answers_is_refused_at_once(shell: Shell, tiny: str) -> None:
    done = shell.coopt("run", tiny, f"simulation.address=127.0.0.1:{free_port()}", "--out", "out")
    assert done.returncode == 2
    assert "cannot be joined" in done.stderr and "Traceback" not in done.stderr


def _run(shell: Shell, tiny: str, name: str, *chosen: str) -> dict[str, Any]:
    """Run ``tiny`` as ``chosen``, and return its digest, log and stored blocks."""
    out = shell.folder / name
    summary = shell.summary("run", tiny, *chosen, "--out", str(out))
    assert not (out / "state" / "arriving").exists()
    return {
        "digest": summary["dataset"]["digest"],
        "log": (out / "state" / "log.txt").read_text(),
        "blocks": list((out / "state" / "blocks").iterdir()),
    }


def _seen(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in folder.glob("*.json")]
