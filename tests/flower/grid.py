"""An in-process grid: the real ClientApp and the real strategy, without processes or network."""

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo

from coopt_fl.config.load import from_tree
from coopt_fl.config.schema import Config
from coopt_fl.federation import protocol
from coopt_fl.federation.client_app import app as client_app
from coopt_fl.strategies.platform import OpenDataPlatform


@dataclass
class FakeGrid:
    """Answers each message by calling the ClientApp; ``tamper`` may change or swallow a reply."""

    partitions: int
    node_config: Callable[[int], dict[str, int | str]] | None = None
    tamper: Callable[[Message, Message], Message | None] = lambda request, reply: reply
    backwards: bool = False
    one_by_one: bool = False
    simulated: bool = True
    asked: int = 0
    sent: list[Message] = field(default_factory=list)
    waiting: dict[str, Message] = field(default_factory=dict)

    def get_nodes(self) -> list[NodeInfo]:
        self.asked += 1
        there = min(self.asked, self.partitions) if self.one_by_one else self.partitions
        return [NodeInfo(node_id=100 + k) for k in range(there)]

    def push_messages(self, messages: list[Message]) -> list[str]:
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{len(self.sent)}"
            self.sent.append(message)
            ids.append(message.metadata.message_id)
            reply = self.tamper(message, self._answer(message))
            if reply is not None:
                self.waiting[message.metadata.message_id] = reply
        return ids

    def pull_messages(self, message_ids: list[str]) -> list[Message]:
        if self.backwards and self.waiting:
            last = list(self.waiting)[-1]
            return [self.waiting.pop(last)]
        return [self.waiting.pop(key) for key in message_ids if key in self.waiting]

    def _answer(self, message: Message) -> Message:
        partition = message.metadata.dst_node_id - 100
        config = {"partition-id": partition, "num-partitions": self.partitions}
        if self.node_config is not None:
            config = self.node_config(partition)
        context = Context(1, message.metadata.dst_node_id, config, RecordDict(), {})
        try:
            return client_app(message, context)
        except Exception as error:
            return Message(Error(code=2, reason=f"Traceback\n{error}"), reply_to=message)

    def kinds(self) -> list[str]:
        return [message.metadata.message_type for message in self.sent]


def tiny(**changes: object) -> Config:
    """Return a configuration that runs in a second: synthetic data and model-free priors."""
    tree = {
        "data": {"source": "synthetic", "limit": 203},
        "participants": [
            {"name": name, "prior": f"trivial:{width}"}
            for name, width in (("alpha", 24), ("beta", 32), ("gamma", 20))
        ],
        "shared": {"size": 64},
        "targets": {"dim": 16},
        "reference": "best",
        "optimize": {"block_rows": 20, "batch_size": 8, "chunk_mb": 0.0015},
    }
    return from_tree(tree, [f"{key}={value}" for key, value in changes.items()], "tiny")


ANSWERS = {
    protocol.DESCRIBE: protocol.Description,
    protocol.REPRESENT: protocol.Representation,
    protocol.PROJECT: protocol.Aligned,
    protocol.ALIGN: protocol.Aligned,
    protocol.OPTIMIZE: protocol.Payload,
}


def telling(
    kind: str, change: Callable[[Any], Any], nodes: Container[int] = range(1000)
) -> Callable[[Message, Message], Message]:
    """Return a ``tamper`` by which ``nodes`` change their answers to messages of one ``kind``."""

    def tamper(request: Message, reply: Message) -> Message:
        if request.metadata.message_type != kind or request.metadata.dst_node_id not in nodes:
            return reply
        told = change(protocol.decode(ANSWERS[kind], reply.content))
        return Message(protocol.encode(told), reply_to=request)

    return tamper


def run_platform(
    config: Config, out: Path, grid: FakeGrid | None = None, **policies: Any
) -> FakeGrid:
    """Run the platform on ``grid``; its state and dataset are in ``out``."""
    grid = grid or FakeGrid(len(config.participants))
    OpenDataPlatform(config, out, **policies).start(grid)
    return grid


def blocks_of(out: Path) -> dict[str, float]:
    """Return the modification time of every stored block."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "state").glob("blocks/*.npz")}
