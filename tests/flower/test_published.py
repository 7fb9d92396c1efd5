"""Nothing that a user or a participant can write brings a place into what is published.

A folder, a user and a host are planted wherever somebody can name one, and looked for in every file
of the dataset.
"""

import json
import shutil
import socket
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from flwr.app import Error, Message
from google.protobuf.message import DecodeError

import coopt_fl
from coopt_fl import api, delivery
from coopt_fl.core.errors import PriorError
from coopt_fl.data.image import Preprocess
from coopt_fl.federation import protocol
from coopt_fl.optimized.verify import verify
from coopt_fl.students.checkpoint import LoadedStudent, save_student
from coopt_fl.students.models import build_student
from tests.flower.deployment import Deployment, impatient
from tests.flower.grid import run_platform, telling, tiny

NAMES = ("alpha", "beta", "gamma")
PLANTED = ("planted-folder", "planted-user", "planted-host")
SAID = (
    "/home/planted-user/planted-folder/x.pt is not on planted-host "
    "(http://planted-host:9000/planted-folder, planted-user@planted-host)"
)
STUDENT = {"student.model": "convnet:2", "student.epochs": 1, "probe.limit": 60}


def checkpoint(folder: Path) -> Path:
    """Write a student into a folder whose name is planted."""
    path = folder.joinpath(*PLANTED) / "student.pt"
    path.parent.mkdir(parents=True)
    grey = ((0.5,) * 3, (0.25,) * 3)
    student = build_student("convnet:8", image_size=16, seed=3)
    save_student(path, LoadedStudent(student, Preprocess(16, 16, "bilinear", *grey), {}))
    return path


def assert_nothing_planted(dataset: Path, *more: str) -> None:
    assert verify(dataset)[1] == []
    parts = sorted(dataset.glob("data/*.parquet"))
    contents = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    contents |= {part / "schema": str(pq.read_schema(part)).encode() for part in parts}
    contents |= {part / "about": repr(pq.read_metadata(part).metadata).encode() for part in parts}
    assert len(parts) > 0 and len(contents) == 3 + 3 * len(parts)
    for words in (*PLANTED, str(Path.home()), socket.gethostname(), *more):
        assert [path for path, content in contents.items() if words.encode() in content] == []


def said(kind: str, request: Message, reply: Message) -> Message:
    """Return beta's answer with a fault of one kind."""
    asked = request.metadata.message_type
    if kind == "solver" and asked in (protocol.PROJECT, protocol.ALIGN):
        return telling(asked, lambda told: replace(told, solver=SAID[:90]))(request, reply)
    if asked != protocol.OPTIMIZE:
        return reply
    if kind == "error":
        return Message(protocol.encode_error(PriorError(SAID)), reply_to=request)
    if kind == "crash":
        return Message(Error(code=2, reason=f"Traceback\nOSError: {SAID}"), reply_to=request)
    if kind == "malformed":
        reply.content.config_records["plain"]["json"] = json.dumps({"seconds": SAID})
    return reply


@dataclass
class Planted(Deployment):
    """A grid on which beta has its own prior, and one kind of fault."""

    prior: str = ""
    kind: str = ""
    route: Path = Path()

    def settings(self, node: int) -> dict[str, str]:
        own = {"prior": self.prior} if self.names[node] == "beta" else {}
        return super().settings(node) | own

    def _answer(self, message: Message) -> Message | None:
        reply = super()._answer(message)
        if reply is None or self.names[message.metadata.dst_node_id] != "beta":
            return reply
        return said(self.kind, message, reply)

    def pull_messages(self, message_ids: list[str]) -> list[Message]:
        replies = super().pull_messages(message_ids)
        for reply in replies:
            kind, node = reply.metadata.message_type, reply.metadata.src_node_id
            if kind == protocol.OPTIMIZE and self.names[node] == "beta":
                if self.kind == "undecodable":
                    raise DecodeError(SAID)
                for part in self.route.glob("*/beta/*") if self.kind == "payload" else ():
                    part.unlink()
        return replies


FAULTS = {
    "error": "it reported an error (PriorError)",
    "crash": "it failed",
    "malformed": "a malformed Payload message came",
    "solver": "got another",
    "payload": "its payload is not there, or is not the one that it announced",
    "undecodable": "its answer cannot be decoded",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_published_without_the_words_of_its_participant(
    kind: str, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path)
    config = impatient(min_participants=2, **{"data.root": path.parent})
    config.participants[0].prior = f"checkpoint:{path}"
    if kind == "payload":
        config.payload.route = str(path.parent / "payloads")
    config.data.shards = str(path.parent / "shards")
    delivery.publish_shards(config, url=config.data.shards, progress=None)
    grid = Planted(prior=f"checkpoint:{path}?size=24", kind=kind, route=path.parent / "payloads")
    run_platform(config, tmp_path / "out", grid.start(*NAMES))
    provenance = coopt_fl.load(tmp_path / "out").provenance
    assert [one.prior for one in provenance.contributors] == [
        "checkpoint:student.pt",
        "checkpoint:student.pt?size=24",
        "trivial:20",
    ]
    (change,) = provenance.plan_changes
    assert change["origin"] == "beta" and FAULTS[kind] in change["reason"]
    assert_nothing_planted(tmp_path / "out/dataset", str(tmp_path))


def test_what_reads_the_published_dataset_works_without_the_places(tmp_path: Path) -> None:
    """A prior is probed by its local path, and the dataset trains a student on any host."""
    prior = f"checkpoint:{checkpoint(tmp_path)}"
    found = api.centralized(
        tiny(**STUDENT), prior=prior, out=tmp_path / "out", progress=None
    ).summary
    assert found["comparison"]["reference_prior"] is not None
    assert_nothing_planted(tmp_path / "out/dataset", str(tmp_path))
    shutil.copytree(tmp_path / "out/dataset", tmp_path / "received")
    trained = api.train(tmp_path / "received", out=tmp_path / "student", devices=1, progress=None)
    assert Path(trained["checkpoint"]).is_file()
