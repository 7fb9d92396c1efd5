"""The phase in which targets come, and every check that stands between a payload and the disk."""

import hashlib
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np
from flwr.app import RecordDict

from coopt_fl.config.schema import Config
from coopt_fl.core import remote
from coopt_fl.core.errors import DataError, OutputError, ParticipantError
from coopt_fl.core.progress import Progress
from coopt_fl.federation import protocol
from coopt_fl.federation.protocol import IntArray, Payload
from coopt_fl.optimized.block import Block

from . import exchange
from .exchange import FLOAT_BYTES, ID_BYTES, SLACK_BYTES, Work
from .inspection import Inspection

THROUGH_FLOWER = "flower"
"""The ``payload.route`` by which payloads are in the replies."""

MOST_SECONDS = 1e7
"""What a chunk can have taken: four months."""

MOST_BLOCKS = 4096
"""In a chunk, since each has some words besides its arrays."""


class Optimize(Work):
    """Everyone's targets, in chunks of whole units."""

    message_type = protocol.OPTIMIZE

    def __init__(
        self,
        task: protocol.Task,
        config: Config,
        inspection: Inspection,
        progress: Progress,
    ) -> None:
        self.task, self.config, self.records = task, config, inspection.records
        self.inspection, self.progress = inspection, progress
        route = config.payload.route
        self.files = None if route == THROUGH_FLOWER else OutOfBand(route, self.records.key)
        self.asked: dict[str, list[int]] = {}
        self.plan = self.records.plan
        self._replan()

    def _replan(self) -> None:
        """Look anew at who has what left to do; what is under way stays so."""
        self.plan = plan = self.records.plan
        stored = self.records.state.has_unit
        waiting = {index for chunk in self.asked.values() for index in chunk}
        self.left: dict[str, deque[int]] = {name: deque() for name in plan.contributors}
        self.rows = {name: [0, 0] for name in plan.contributors}
        for index, owner in enumerate(plan.owners):
            name, rows, done = plan.contributors[owner], len(plan.blocks[index]), stored(index)
            self.rows[name][1] += rows
            self.rows[name][0] += rows if done else 0
            if not done and index not in waiting:
                self.left[name].append(index)
        for name in self.left:
            self._show(name)

    def missing(self, name: str) -> bool:
        """Whether blocks of ``name`` are not stored."""
        if self.plan is not self.records.plan:
            self._replan()
        return bool(self.left.get(name) or self.asked.get(name))

    def ready(self, name: str) -> bool:
        """Whether the audit knows what to expect of ``name``."""
        return self.inspection.ready(name)

    def ask(self, name: str) -> protocol.Optimize:
        """Ask for the next chunk that is not stored."""
        plan, alignment = self.records.plan, self.records.alignment(name)
        self.asked[name] = take_chunk(self.left[name], self._rows, self._most_rows(name))
        ids = [plan.units[index] for index in self.asked[name]]
        return protocol.Optimize(
            task=self.task,
            contributor=plan.contributors.index(name),
            blocks=self.asked[name],
            sizes=[len(unit) for unit in ids],
            ids=np.concatenate(ids),
            weight=alignment.weight,
            bias=alignment.bias,
            upload=self.files.place(name) if self.files else "",
        )

    def returned(self, name: str) -> None:
        """Put the last chunk of ``name`` back in front, for whoever has to do it now."""
        if self.files:
            self.files.abandon(name)
        plan = self.records.plan
        for index in reversed(self.asked.pop(name)):
            self.left[plan.contributors[plan.owners[index]]].appendleft(index)

    def cost(self, name: str) -> int:
        """Ids and the map there, ids and targets back."""
        dim = self.config.targets.dim
        head = deque(self.left.get(name) or ())
        rows = sum(map(self._rows, take_chunk(head, self._rows, self._most_rows(name))))
        return self._bytes(rows) + FLOAT_BYTES * dim * self.records.width(name)

    def accept(self, name: str, content: RecordDict) -> None:
        """Check the payload and store its blocks, and apart what is for the audit."""
        plan = self.records.plan
        units = {index: plan.units[index] for index in self.asked[name]}
        everything = np.concatenate(list(units.values()))
        if self.files:
            payload, size = self.files.payload(name, content, self._bytes(len(everything)))
        else:
            payload, size = protocol.decode(Payload, content), 0
        require_skips(payload.skipped, everything, self.task.on_error)
        contributor = plan.contributors.index(name)
        accepted = accept_payload(payload, units, self.config.targets.dim, contributor)
        for index, unit in accepted.items():
            self._inspect(name, index, unit)
        for index, unit in accepted.items():
            audited = self.inspection.audited
            self.records.state.save_unit(index, unit, plan.blocks[index], audited)
        del self.asked[name]
        if self.files:
            self.files.forget(name)
        self.records.add_upload(name, size)
        self.rows[name][0] += sum(len(plan.blocks[index]) for index in units)
        self._show(name)

    def _inspect(self, name: str, index: int, unit: Block) -> None:
        known, expected = self.inspection.of(name)
        projected = index in self.inspection.projected
        problem = self.inspection.policy.inspect(unit, known, expected, projected=projected)
        if problem:
            raise ParticipantError(f"block {index}: {problem}")

    def close(self) -> None:
        """Clean up after payloads that came too late."""
        if self.files:
            self.files.close()

    def _bytes(self, rows: int) -> int:
        """Return the bytes of the ids there, and of ids and targets back."""
        return rows * (2 * ID_BYTES + 2 * self.config.targets.dim)

    def _rows(self, index: int) -> int:
        return len(self.records.plan.units[index])

    def _most_rows(self, name: str) -> int:
        """Return how many rows a chunk may have, that everyone's may be in flight at once."""
        dim = self.config.targets.dim
        share = exchange.IN_FLIGHT_BYTES / len(self.records.plan.contributors)
        left = share - FLOAT_BYTES * dim * self.records.width(name)
        most = min(self.config.optimize.chunk_mb * 1e6 / (2 * dim), left / self._bytes(1))
        return max(int(most), 0)

    def _show(self, name: str) -> None:
        """Show what ``name`` has done of its shard."""
        done, total = self.rows[name]
        self.progress.show(f"  {name}", done, total, "samples")


def take_chunk(left: deque[int], rows: Callable[[int], int], most_rows: int) -> list[int]:
    """Take blocks off the front of ``left``, as many as have at most ``most_rows`` together.

    A first block that is larger than that makes a chunk of its own. No chunk has more than
    ``MOST_BLOCKS``.

    Args:
        left: indexes of blocks; it is changed.
        rows: tells how many rows a block has.
        most_rows: of a chunk.
    """
    chunk = [left.popleft()] if left else []
    filled = sum(map(rows, chunk))
    while left and len(chunk) < MOST_BLOCKS and filled + rows(left[0]) <= most_rows:
        chunk.append(left.popleft())
        filled += rows(chunk[-1])
    return chunk


def accept_payload(
    payload: Payload, expected: Mapping[int, IntArray], dim: int, contributor: int
) -> dict[int, Block]:
    """Return the blocks in ``payload`` after comparing them with what was asked for.

    Args:
        payload: the reply.
        expected: ids (ascending) of each block that was asked for, in order.
        dim: width n of a target.
        contributor: index of the participant.

    Raises:
        ParticipantError: what was expected, what came, and that nothing of it is used.
    """
    _check_shape(payload, list(expected), dim)
    blocks: dict[int, Block] = {}
    ends = np.cumsum(payload.rows).tolist()
    for (index, wanted), rows, end, digest in zip(
        expected.items(), payload.rows, ends, payload.digests, strict=True
    ):
        part = slice(end - rows, end)
        ids, targets = payload.ids[part], payload.targets[part]
        skipped = np.intersect1d(wanted, payload.skipped)
        _require(
            np.array_equal(ids, np.setdiff1d(wanted, skipped)),
            f"the ids of block {index}, each once and ascending",
            "other ids",
        )
        _require(bool(np.isfinite(targets).all()), "finite targets", f"NaN or infinity in {index}")
        participants = np.full(rows, contributor, np.int16)
        share = payload.seconds * rows / max(len(payload.ids), 1)
        block = Block(ids, targets, participants, skipped, share)
        _require(block.digest == digest, f"digest {block.digest[:12]}", str(digest)[:12])
        blocks[index] = block
    return blocks


def require_skips(skipped: IntArray, asked: IntArray, on_error: str) -> None:
    """Compare what a participant left out with what it was asked for, and with ``data.on_error``.

    Raises:
        ParticipantError: it may leave nothing out, or was not asked for it.
    """
    _require(on_error == "skip" or not len(skipped), "every sample", f"{len(skipped)} skipped")
    strange = np.setdiff1d(skipped, asked)
    _require(not len(strange), "only samples that were asked for", f"skipped {strange[:3]}")


def _check_shape(payload: Payload, asked: list[int], dim: int) -> None:
    """Compare the blocks, row counts and shapes before anything is indexed with them."""
    total = len(payload.ids)
    _require(payload.blocks == asked, f"blocks {asked}", str(payload.blocks))
    _require(
        len(payload.rows) == len(payload.digests) == len(asked),
        f"{len(asked)} row counts and digests",
        f"{len(payload.rows)} and {len(payload.digests)}",
    )
    _require(
        payload.ids.ndim == 1 and min(payload.rows) >= 0 and sum(payload.rows) == total,
        "as many ids as the rows of its blocks",
        f"ids {payload.ids.shape} for {sum(payload.rows)} rows",
    )
    _require(
        payload.targets.shape == (total, dim),
        f"targets of shape ({total}, {dim})",
        str(payload.targets.shape),
    )
    _require(0 <= payload.seconds <= MOST_SECONDS, "a time", str(payload.seconds))


def _require(holds: bool, expected: str, came: str) -> None:
    if not holds:
        raise ParticipantError(f"expected {expected}, got {came}; its payload is not used")


class OutOfBand:
    """Payloads are files below ``url``; a reply holds the size and sum of one.

    The platform says where a participant has to write, so that nobody's file is taken for
    another's. A file that was changed is asked for again: its author may not be to blame.
    """

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key  # of the run's dataset
        self._places: dict[str, str] = {}
        self._abandoned: list[str] = []

    def place(self, name: str) -> str:
        """Return the URL of a file of this run and participant, which nobody else can guess."""
        file = f"{secrets.token_hex(8)}.npz"
        self._places[name] = remote.join(self.url, self.key[:16], name, file)
        return self._places[name]

    def payload(
        self, name: str, content: RecordDict, expected: int
    ) -> tuple[protocol.Payload, int]:
        """Fetch the file that an answer announces; return the payload and the file's bytes.

        Args:
            name: of the participant.
            content: its answer.
            expected: bytes of the arrays in the payload.

        Raises:
            ParticipantError: it is larger than it has to be, or no payload.
            DataError: it is not there, or not the one that was announced.
        """
        receipt = protocol.decode(protocol.Receipt, content)
        most = expected + SLACK_BYTES
        if not 0 < receipt.size <= most:
            raise ParticipantError(f"its payload has {receipt.size} bytes, expected at most {most}")
        place = self._places[name]
        data = remote.fetch(place, receipt.size)
        if len(data) != receipt.size or hashlib.sha256(data).hexdigest() != receipt.sha256:
            raise DataError(
                f"the payload at {remote.shown(place)} is not the one that it announced; see who "
                "else can write there"
            )
        return protocol.unpack(data), len(data)

    def forget(self, name: str) -> None:
        """Remove the file of a payload that is stored, where the platform may."""
        _remove(self._places[name])

    def abandon(self, name: str) -> None:
        """Wait no longer for a file; a participant that is late may still write it."""
        self._abandoned.append(self._places[name])
        self.forget(name)

    def close(self) -> None:
        """Remove what came late."""
        for place in self._abandoned:
            _remove(place)


def _remove(place: str) -> None:
    with suppress(OutputError):
        remote.remove(place)
