"""Flower's messages without processes or network: a ClientApp answers in this process."""

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.inflatable.inflatable_object import InflatableObject, get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import InMemoryGrid


@dataclass
class InProcess(InMemoryGrid):
    """Answers a message when its reply is pulled, so that no replies are held in memory.

    Attributes:
        app: The ClientApp that answers as every participant.
        participants: Number of nodes.
        seconds: CPU time of the participants.
        messages: Number of requests by type.
        waiting: Requests by id whose replies have not been pulled yet.
    """

    app: ClientApp
    participants: int
    seconds: float = 0.0
    messages: Counter[str] = field(default_factory=Counter)
    waiting: dict[str, Message] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Set the task identity that Flower puts on messages, and silence its log of rounds."""
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        logging.getLogger("flwr").setLevel(logging.WARNING)

    def get_node_ids(self) -> list[int]:
        """Return the ids of all nodes."""
        return [1 + k for k in range(self.participants)]

    def get_nodes(self) -> list[NodeInfo]:
        """Return all nodes."""
        return [NodeInfo(node_id=node) for node in self.get_node_ids()]

    def push_messages(self, messages: Any) -> list[str]:
        """Hold messages until their replies are pulled."""
        keys = []
        for message in messages:
            key = f"m{self.messages.total()}"
            message.metadata.__dict__["_message_id"] = key
            self.waiting[key] = message
            self.seen(message)
            self.messages[message.metadata.message_type] += 1
            keys.append(key)
        return keys

    def pull_messages(self, message_ids: Any) -> list[Message]:
        """Answer each message now, and return the replies."""
        return [self._answer(self.waiting.pop(key)) for key in message_ids if key in self.waiting]

    def seen(self, message: Message) -> None:
        """Do nothing; subclasses observe each request and each reply."""

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        place: dict[str, Any] = {"partition-id": node - 1, "num-partitions": self.participants}
        started = time.thread_time()
        reply = self.app(message, Context(1, node, place, RecordDict(), {}))
        self.seconds += time.thread_time() - started
        self.seen(reply)
        return reply


@dataclass
class Weighing(InProcess):
    """Counts the bytes of all messages as Flower sends them.

    Attributes:
        down: Bytes of requests, by type of message.
        up: Bytes of replies.
    """

    down: Counter[str] = field(default_factory=Counter)
    up: Counter[str] = field(default_factory=Counter)

    def seen(self, message: Message) -> None:
        """Count a message."""
        way = self.up if message.metadata.reply_to_message_id else self.down
        way[message.metadata.message_type] += weigh(message)


def weigh(sent: InflatableObject) -> int:
    """Return the bytes of a message, or of a part of one, as Flower serialises it."""
    return sum(len(piece.deflate()) for piece in get_all_nested_objects(sent).values())
