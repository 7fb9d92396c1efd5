"""A grid of named nodes that come and go, as in a deployment."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo

from coopt_fl.config.schema import Config
from coopt_fl.federation import protocol
from coopt_fl.federation.client_app import app as client_app
from coopt_fl.federation.protocol import Optimize, decode
from tests.flower.grid import FakeGrid, tiny

OFFLINE, DIED = 5, 8

Fault = Callable[["Deployment", str, Message], bool]
"""Called with every request of one type before its answer; True suppresses the answer."""


@dataclass
class Deployment(FakeGrid):
    """Nodes by name; ``fault`` happens to requests of the type ``at``.

    Attributes:
        names: the name that each node claims, by node id.
        registered: the name under which a node's key is registered.
        activated: the time at which a node was last activated.
        fault: the fault.
        code: Flower's error code instead of an answer; None for no answer at all.
        done: the number of deliveries of each block.
    """

    partitions: int = 0
    simulated: bool = False
    names: dict[int, str] = field(default_factory=dict)
    registered: dict[int, str] = field(default_factory=dict)
    activated: dict[int, str] = field(default_factory=dict)
    fault: Fault = lambda grid, name, message: False
    code: int | None = OFFLINE
    at: str = protocol.OPTIMIZE
    done: Counter[int] = field(default_factory=Counter)
    _next: int = 100

    def start(self, *names: str) -> "Deployment":
        """Start a node for each name; its id is a new one."""
        for name in names:
            self._next += 1
            self.names[self._next] = name
        return self

    def kill(self, name: str) -> None:
        """Kill the node of ``name``."""
        self.names = {node: one for node, one in self.names.items() if one != name}

    def restart(self, name: str) -> None:
        """Start the node of ``name`` again, under its id, before anyone has missed it."""
        self.activated |= {node: "again" for node, one in self.names.items() if one == name}

    def settings(self, node: int) -> dict[str, str]:
        """Return the ``--node-config`` of a node."""
        return {"name": self.names[node]}

    def get_nodes(self) -> list[NodeInfo]:
        return [
            NodeInfo(
                node_id=node,
                name=self.registered.get(node, ""),
                last_activated_at=self.activated.get(node, "at first"),
            )
            for node in self.names
        ]

    def _answer(self, message: Message) -> Message | None:
        name, node = self.names.get(message.metadata.dst_node_id), message.metadata.dst_node_id
        kind = message.metadata.message_type
        if name is None or (kind == self.at and self.fault(self, name, message)):
            if name is not None and self.code is None:
                return None
            return Message(Error(code=self.code or OFFLINE, reason="gone"), reply_to=message)
        context = Context(1, node, self.settings(node), RecordDict(), {})
        reply = client_app(message, context)
        if kind == protocol.OPTIMIZE:
            self.done.update(decode(Optimize, message.content).blocks)
        return reply


class Nth:
    """A fault of the n-th request to a participant, and of those after if ``onwards``."""

    def __init__(
        self,
        name: str,
        number: int,
        act: Callable[[Deployment], object] = lambda grid: None,
        onwards: bool = False,
    ) -> None:
        self.name, self.number, self.act, self.onwards = name, number, act, onwards
        self.seen = 0

    def __call__(self, grid: Deployment, name: str, message: Message) -> bool:
        self.seen += name == self.name
        if name != self.name or self.seen < self.number:
            return False
        if self.seen == self.number:
            self.act(grid)
        return self.onwards or self.seen == self.number


def patient(**changes: object) -> Config:
    """Return the tiny configuration with deadlines that a deployment in a test keeps."""
    return tiny(**{"deadline.join": 30, "deadline.rejoin": 30} | changes)


def impatient(**changes: object) -> Config:
    """Return a configuration with short deadlines, for tests in which a participant stays away."""
    return patient(**{"deadline.join": 0.5, "deadline.rejoin": 0.3} | changes)


def targets_of(out: Path) -> np.ndarray:
    """Return the targets of a run by id; every id must occur exactly once."""
    import coopt_fl

    dataset = coopt_fl.load(out)
    assert np.array_equal(np.sort(dataset.ids), np.arange(203))
    return dataset.targets[np.argsort(dataset.ids)]
