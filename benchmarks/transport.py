"""Payloads from participants to the platform's disk, over a plain copy of as many bytes.

A Flower simulation of two participants that do nothing but answer ready-made payloads; the
platform decodes, checks and stores them as in a run. The roofline copies a file of the same size
and syncs it to the disk.
"""

import os
import shutil
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from benchmarks.timing import spread
from coopt_fl import protocol
from coopt_fl.config import load_config
from coopt_fl.optimized.block import block_digest
from coopt_fl.optimized.state import RunState
from coopt_fl.simulation import backend
from strategies.exchange import Exchange, content_of
from strategies.fusion import accept_payload

DIM = 512
ROWS = 16_384  # of 512 float16: a chunk of 16.8 MB, the default of optimize.chunk_mb
CHUNKS = 12

client_app = ClientApp()


@client_app.train("optimize")
def answer(message: Message, context: Context) -> Message:
    """Return random targets without computing any."""
    return Message(protocol.encode(_payload()), reply_to=message)


def measure() -> dict[str, Any]:
    """Return MB/s of both and their ratio."""
    from flwr.simulation import run_simulation

    config = load_config("digits")
    config.participants = config.participants[:2]
    seconds = list[float]()
    app = ServerApp()

    with tempfile.TemporaryDirectory() as folder:

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            seconds.append(_gather(grid, RunState(Path(folder))))

        run_simulation(app, client_app, len(config.participants), backend_config=backend(config))
        copies = [_copy(Path(folder)) for _ in range(5)]
    megabytes = CHUNKS * ROWS * DIM * 2 / 1e6
    return {
        "megabytes": megabytes,
        "MB_per_s": megabytes / seconds[0],
        "copy_MB_per_s": spread([megabytes / one for one in copies]),
        "ratio": spread([one / seconds[0] for one in copies]),
    }


def _gather(grid: Grid, state: RunState) -> float:
    """Ask, receive, check and store all chunks but a first, which starts the processes."""
    exchange, nodes = Exchange(threading.Event(), 600), _nodes(grid)
    names = dict.fromkeys(nodes, "benchmark")
    expected = {0: np.arange(ROWS)}
    started, asked = 0.0, len(nodes)
    exchange.send(grid, [_request(node) for node in nodes], names)
    for done, reply in enumerate(exchange.replies(grid), start=1):
        node = exchange.take(reply).node
        payload = protocol.decode(protocol.Payload, content_of(reply))
        state.save_block(done, accept_payload(payload, expected, DIM, 0)[0])
        if done == len(nodes):
            started = time.perf_counter()
        if asked < CHUNKS + len(nodes):
            exchange.send(grid, [_request(node)], names)
            asked += 1
    return time.perf_counter() - started


def _request(node: int) -> Message:
    config = load_config("digits")
    request = protocol.Describe(protocol.task_of(config, ""), False)
    return Message(protocol.encode(request), node, protocol.OPTIMIZE)


@cache
def _payload() -> protocol.Payload:
    ids = np.arange(ROWS)
    targets = np.random.default_rng(0).integers(0, 1000, (ROWS, DIM)).astype(np.float16)
    digest = block_digest(ids, targets, np.zeros(ROWS, np.int16))
    return protocol.Payload([0], [ROWS], ids, targets, np.empty(0, np.int64), [digest], 0.0)


def _nodes(grid: Grid) -> list[int]:
    while len(nodes := list(grid.get_node_ids())) < 2:
        time.sleep(0.1)
    return nodes


def _copy(folder: Path) -> float:
    """Return the seconds of copying as many bytes as all chunks have, synced."""
    source = folder / "plain"
    if not source.exists():
        source.write_bytes(np.random.default_rng(0).bytes(CHUNKS * ROWS * DIM * 2))
    started = time.perf_counter()
    with source.open("rb") as read, (folder / "copy").open("wb") as write:
        shutil.copyfileobj(read, write)
        write.flush()
        os.fsync(write.fileno())
    return time.perf_counter() - started
