"""What counts as an answer that came too late."""

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from coopt_fl.strategies.exchange import Exchange, Job

DEADLINE = 0.05


class Nodes:
    """A grid whose nodes answer at once, but for the silent."""

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


def ask(exchange: Exchange, grid: Grid, node: int) -> None:
    exchange.prepare(Job(cast(Any, None), f"at {node}", node, cost=0))
    exchange.send(grid, [Message(RecordDict(), node, "train")])


def test_an_answer_that_came_while_others_were_stored_is_in_time() -> None:
    exchange, grid = Exchange(threading.Event(), DEADLINE), cast(Grid, Nodes())
    ask(exchange, grid, 1)
    for reply, _ in exchange.replies(grid):
        exchange.take(reply)
        ask(exchange, grid, 2)
        time.sleep(2 * DEADLINE)  # the first answer is being stored
    assert exchange.lost() == []
    ((_, job),) = exchange.replies(grid)
    assert job.node == 2


def test_what_had_not_come_when_looked_for_after_its_deadline_is_lost() -> None:
    exchange, grid = Exchange(threading.Event(), DEADLINE), cast(Grid, Nodes(1))
    ask(exchange, grid, 1)
    assert list(exchange.replies(grid)) == []
    assert exchange.lost() == []
    time.sleep(2 * DEADLINE)
    assert list(exchange.replies(grid)) == []
    ((job, reason),) = exchange.lost()
    assert job.node == 1
    assert "deadline.reply" in str(reason)
    assert exchange.under_way() == []
