"""Payloads from participants to the platform's disk, against a plain copy of as many bytes.

A Flower simulation of two participants that do nothing but answer ready-made payloads; the
platform decodes, checks and stores them as in a run. The roofline copies a file of the same size
and syncs it to the disk.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from coopt_fl.bench.measure import Case, Row, Times, in_turn, spread
from coopt_fl.config.load import load_config
from coopt_fl.federation import protocol
from coopt_fl.federation.simulation import QUIET, backend
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.block import block_digest

DIM = 512
ROWS = 16_384  # of 512 float16: a chunk of 16.8 MB, the default of optimize.chunk_mb
CHUNKS = 12
POLL_SECONDS = 0.05
REPEATS = 5

CASE = Case(
    "transport",
    f"{CHUNKS} payloads of {ROWS * DIM * 2 / 1e6:.1f} MB through a simulation, checked and stored",
    "copying as many bytes to a file, synced",
)

client_app = ClientApp()


@client_app.train("optimize")
def answer(message: Message, context: Context) -> Message:
    """Return random targets without computing any."""
    return Message(protocol.encode(_payload()), reply_to=message)


def transport() -> Iterator[Row]:
    """Yield the row."""
    from flwr.simulation import run_simulation

    os.environ.update(QUIET)
    config = load_config("digits")
    config.participants = config.participants[:2]
    found = list[tuple[Times, Times]]()
    app = ServerApp()

    with tempfile.TemporaryDirectory() as folder:

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            state = RunState(Path(folder))
            turns = in_turn(lambda: _gather(grid, state), lambda: _copy(Path(folder)), REPEATS)
            found.append(turns)

        run_simulation(app, client_app, len(config.participants), backend_config=backend(config))
    ((gathered, copied),) = found
    megabytes = CHUNKS * ROWS * DIM * 2 / 1e6
    yield CASE.measured(
        spread(copied / gathered),
        megabytes=round(megabytes, 1),
        MB_per_s=spread(megabytes / gathered),
        copy_MB_per_s=spread(megabytes / copied),
    )


def _gather(grid: Grid, state: RunState) -> float:
    """Ask, receive, check and store all chunks but a first of each, which starts the clock."""
    while len(nodes := list(grid.get_node_ids())) < 2:
        time.sleep(0.1)
    waiting = set(grid.push_messages([_request(node) for node in nodes]))
    started, asked, done = 0.0, len(nodes), 0
    while waiting:
        for reply in grid.pull_messages(waiting):
            waiting.remove(reply.metadata.reply_to_message_id)
            done += 1
            payload = protocol.decode(protocol.Payload, reply.content)
            block = protocol.accept_payload(payload, {0: np.arange(ROWS)}, DIM, 0)[0]
            state.save_block(done, block)
            if done == len(nodes):
                started = time.perf_counter()
            if asked < CHUNKS + len(nodes):
                waiting |= set(grid.push_messages([_request(reply.metadata.src_node_id)]))
                asked += 1
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - started


def _request(node: int) -> Message:
    config = load_config("digits")
    request = protocol.Describe(protocol.task_of(config, "", simulated=True), False)
    return Message(protocol.encode(request), node, protocol.OPTIMIZE)


@cache
def _payload() -> protocol.Payload:
    ids = np.arange(ROWS)
    targets = np.random.default_rng(0).integers(0, 1000, (ROWS, DIM)).astype(np.float16)
    digest = block_digest(ids, targets, np.zeros(ROWS, np.int16))
    return protocol.Payload([0], [ROWS], ids, targets, np.empty(0, np.int64), [digest], 0.0)


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
