"""Which answers count as late."""

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from coopt_fl.strategies.exchange import Exchange, Job

DEADLINE = 0.05


class Nodes:
    """A grid whose nodes answer at once, except the silent ones."""

    def __init__(self, *silent: int) -> None:
        self.silent = silent
        self.asked: dict[str, int] = {}

    def push_messages(self, messages: list[Message]) -> list[str]:
        names = [
            f"message-{len(self.asked)}-{message.metadata.dst_node_id}" for message in messages
        ]
        self.asked |= {n: m.metadata.dst_node_id for n, m in zip(names, messages, strict=True)}
        return names

    def pull_messages(self, names: list[str]) -> list[Any]:
        replied = [name for name in names if self.asked[name] not in self.silent]
        return [SimpleNamespace(metadata=SimpleNamespace(reply_to_message_id=n)) for n in replied]


def exchange_with(nodes: Nodes) -> Exchange:
    return Exchange(cast(Grid, nodes), threading.Event(), DEADLINE, simulated=True)


def ask(exchange: Exchange, node: int) -> None:
    job = Job(cast(Any, None), f"at {node}", node, cost=0)
    assert exchange.send(Message(RecordDict(), node, "train"), job)


def test_an_answer_that_came_while_others_were_stored_is_in_time() -> None:
    exchange = exchange_with(Nodes())
    ask(exchange, 1)
    for reply in exchange.replies():
        exchange.take(reply)
        ask(exchange, 2)
        time.sleep(2 * DEADLINE)  # the first answer is being stored
    assert exchange.lost() == []
    (reply,) = exchange.replies()
    assert exchange.take(reply).node == 2


def test_what_had_not_come_when_looked_for_after_its_deadline_is_lost() -> None:
    exchange = exchange_with(Nodes(1))
    ask(exchange, 1)
    assert list(exchange.replies()) == []
    assert exchange.lost() == []
    time.sleep(2 * DEADLINE)
    assert list(exchange.replies()) == []
    ((job, reason),) = exchange.lost()
    assert job.node == 1
    assert "deadline.reply" in str(reason)
    assert exchange.under_way() == []
