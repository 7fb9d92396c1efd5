"""Payloads from participants to the platform's disk, against a plain copy of the same bytes.

In a Flower simulation, participants only write a ready-made payload to a file on this host and sync
it, for each request; the platform checks and adopts the files as in a run. There are more
participants than actors, so that actors never wait for Flower, which polls for messages ten times a
second. The roofline copies a file of the same size and syncs it to the disk.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from coopt_fl.bench.measure import Case, Reach, Row, Times, in_turn, spread
from coopt_fl.config.load import load_config
from coopt_fl.federation import protocol
from coopt_fl.federation.backend import ENVIRONMENT, backend
from coopt_fl.federation.state import RunState
from coopt_fl.federation.units import Rows, leave_unit, unit_file
from coopt_fl.optimized.block import joined, rows_digest

DIM = 512
ROWS = 16_384  # of 512 float16: a chunk of 16.8 MB, the default of optimize.chunk_mb
CHUNKS = 24
ACTORS, PARTICIPANTS = 2, 8
POLL_SECONDS = 0.02
REPEATS = 5

CASE = Case(
    "transport",
    f"{CHUNKS} payloads of {ROWS * DIM * 2 / 1e6:.1f} MB through a simulation, checked and stored",
    "copying as many bytes to a file, synced",
    Reach(0.5),
)
IDS = np.arange(ROWS)
NONE = np.empty(0, np.int64)

client_app = ClientApp()


@client_app.train("optimize")
def answer(message: Message, context: Context) -> Message:
    """Reply with ready-made random targets."""
    request = protocol.decode(protocol.Optimize, message.content)
    rows, digest = _unit()
    leave_unit(Path(request.folder), 0, rows)
    delivery = protocol.Delivery([0], [ROWS], NONE, [digest], 0.0)
    return Message(protocol.encode(delivery), reply_to=message)


def transport() -> Iterator[Row]:
    """Yield the row."""
    from flwr.simulation import run_simulation

    os.environ.update(ENVIRONMENT)
    config = load_config("digits", [f"simulation.actors={ACTORS}"])
    found = list[tuple[Times, Times]]()
    app = ServerApp()

    with tempfile.TemporaryDirectory() as folder:

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            state = RunState(Path(folder))
            turns = in_turn(lambda: _gather(grid, state), lambda: _copy(Path(folder)), REPEATS)
            found.append(turns)

        run_simulation(app, client_app, PARTICIPANTS, backend_config=backend(config))
    ((gathered, copied),) = found
    megabytes = CHUNKS * ROWS * DIM * 2 / 1e6
    yield CASE.measured(
        spread(copied / gathered),
        megabytes=round(megabytes, 1),
        MB_per_s=spread(megabytes / gathered),
        copy_MB_per_s=spread(megabytes / copied),
    )


def _gather(grid: Grid, state: RunState) -> float:
    """Return the seconds to request, receive, check and store CHUNKS payloads.

    Timing starts after a first payload of each participant.
    """
    while len(nodes := list(grid.get_node_ids())) < PARTICIPANTS:
        time.sleep(0.1)
    waiting = dict(_ask(grid, state, node) for node in nodes)
    started, asked, done = 0.0, len(nodes), 0
    while waiting:
        for reply in grid.pull_messages(list(waiting)):
            folder = waiting.pop(reply.metadata.reply_to_message_id)
            done += 1
            told = protocol.decode(protocol.Delivery, reply.content)
            unit = protocol.accept_delivery(told, folder, {0: IDS}, DIM, 0)[0]
            state.adopt_unit(unit_file(folder, 0), done, unit, told.digests[0], IDS, NONE)
            if done == len(nodes):
                started = time.perf_counter()
            if asked < CHUNKS + len(nodes):
                waiting |= [_ask(grid, state, reply.metadata.src_node_id)]
                asked += 1
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - started


def _ask(grid: Grid, state: RunState, node: int) -> tuple[str, Path]:
    """Request a unit from a node; return the message's id, and the folder for the unit."""
    folder = Path(tempfile.mkdtemp(dir=state.out))
    request = replace(_request(), folder=str(folder))
    (sent,) = grid.push_messages([Message(protocol.encode(request), node, protocol.OPTIMIZE)])
    return sent, folder


@cache
def _request() -> protocol.Optimize:
    task, none = (
        protocol.task_of(load_config("digits"), "", simulated=True),
        np.empty(0, np.float32),
    )
    return protocol.Optimize(task, 0, [0], [ROWS], IDS, none, none, "", "")


@cache
def _unit() -> tuple[Rows, str]:
    targets = np.random.default_rng(0).integers(0, 1000, (ROWS, DIM)).astype(np.float16)
    rows = joined(IDS, targets, np.zeros(ROWS, np.int16))
    return rows, rows_digest(rows)


def _copy(folder: Path) -> float:
    """Return the seconds to copy and sync a file as large as all chunks together."""
    source = folder / "plain"
    if not source.exists():
        source.write_bytes(np.random.default_rng(0).bytes(CHUNKS * ROWS * DIM * 2))
    started = time.perf_counter()
    with source.open("rb") as read, (folder / "copy").open("wb") as write:
        shutil.copyfileobj(read, write)
        write.flush()
        os.fsync(write.fileno())
    return time.perf_counter() - started
