"""The phase in which targets come, in replies or as files, are checked, and stored."""

import hashlib
import secrets
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate
from typing import Any

import numpy as np

from coopt_fl.core import remote
from coopt_fl.core.errors import DataError, OutputError, ParticipantError
from coopt_fl.federation import protocol
from coopt_fl.federation.protocol import Payload, accept_payload, require_skips

from . import exchange
from .exchange import FLOAT_BYTES, ID_BYTES, SLACK_BYTES, Phase
from .inspection import Inspection

THROUGH_FLOWER = "flower"
"""The ``payload.route`` by which payloads are in the replies."""

MOST_BLOCKS = 4096
"""In a chunk, since each has some words besides its arrays."""


class Optimize(Phase):
    """Everyone's targets, in chunks of whole units."""

    message_type = protocol.OPTIMIZE

    def __init__(self, task: protocol.Task, inspection: Inspection) -> None:
        self.task, self.inspection, self.policy = task, inspection, inspection.policy
        self.config, self.records = inspection.decisions.config, inspection.records
        route = self.config.payload.route
        self.files = None if route == THROUGH_FLOWER else OutOfBand(route, self.records.key)
        self.answer = protocol.Receipt if self.files else protocol.Payload
        self.asked: dict[str, list[int]] = {}
        self._replan()

    def _replan(self) -> None:
        """Look anew at who has what left to do; what is under way stays so."""
        self.plan, stored = self.records.plan, self.records.state.has_unit
        waiting = {index for chunk in self.asked.values() for index in chunk}
        self.shards = self.plan.shards()
        self.left = {
            name: [k for k in blocks if k not in waiting and not stored(k)]
            for name, blocks in self.shards.items()
        }
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
        plan, alignment = self.plan, self.records.alignment(name)
        self.asked[name] = chunk = self._next(name)
        self.left[name] = self.left[name][len(chunk) :]
        return protocol.Optimize(
            task=self.task,
            contributor=plan.contributors.index(name),
            blocks=chunk,
            sizes=[len(plan.units[index]) for index in chunk],
            ids=np.concatenate([plan.units[index] for index in chunk]),
            weight=alignment.weight,
            bias=alignment.bias,
            upload=self.files.place(name) if self.files else "",
        )

    def returned(self, name: str) -> None:
        """Put the last chunk of ``name`` back, for whoever has to do it now."""
        del self.asked[name]
        self._replan()

    def cost(self, name: str) -> int:
        """Ids and the map there, ids and targets back."""
        rows = sum(len(self.plan.units[index]) for index in self._next(name))
        return self._bytes(rows) + self._map_bytes(name)

    def accept(self, name: str, answer: Any) -> None:
        """Check the payload and store its blocks, and apart what is for the audit."""
        plan = self.plan
        units = {index: plan.units[index] for index in self.asked[name]}
        everything = np.concatenate(list(units.values()))
        size = self._bytes(len(everything))
        payload = self.files.fetch(name, answer, size) if self.files else answer
        require_skips(payload.skipped, everything, self.task.on_error)
        contributor = plan.contributors.index(name)
        accepted = accept_payload(payload, units, self.config.targets.dim, contributor)
        known, expected = self.inspection.known(name)
        for index, unit in accepted.items():
            projected = index in self.inspection.projected
            if problem := self.policy.inspect(unit, known, expected, projected=projected):
                raise ParticipantError(f"block {index}: {problem}")
        for index, unit in accepted.items():
            audited = self.inspection.audited
            self.records.state.save_unit(index, unit, plan.blocks[index], audited)
        del self.asked[name]
        if self.files:
            self.files.forget(name)
            self.records.add_upload(name, answer.size)
        self._show(name)

    def close(self) -> None:
        """Clean up after payloads that nobody fetched."""
        if self.files:
            self.files.close()

    def _next(self, name: str) -> list[int]:
        """Return the next chunk of ``name``, so small that everyone's may be in flight at once.

        But with at least as many bytes of ids and targets as the map has: where many take part,
        fewer are asked at a time, and what is sent is not mostly maps.
        """
        dim, units, map_bytes = self.config.targets.dim, self.plan.units, self._map_bytes(name)
        unfinished = {one for one, blocks in self.left.items() if blocks} | self.asked.keys()
        share = exchange.IN_FLIGHT_BYTES / max(len(unfinished), 1)
        left = max(share - map_bytes, map_bytes) / self._bytes(1)
        most = min(self.config.optimize.chunk_mb * 1e6 / (2 * dim), left)
        return first_chunk(self.left.get(name, []), lambda index: len(units[index]), most)

    def _bytes(self, rows: int) -> int:
        """Return the bytes of the ids there, and of ids and targets back."""
        return rows * (2 * ID_BYTES + 2 * self.config.targets.dim)

    def _map_bytes(self, name: str) -> int:
        return FLOAT_BYTES * self.config.targets.dim * self.records.width(name)

    def _show(self, name: str) -> None:
        """Show what ``name`` has done of its shard."""
        open_blocks = self.left[name] + self.asked.get(name, [])
        total, left = (
            sum(len(self.plan.blocks[index]) for index in blocks)
            for blocks in (self.shards[name], open_blocks)
        )
        self.inspection.decisions.progress.show(f"  {name}", total - left, total, "sample")


def first_chunk(left: list[int], rows: Callable[[int], int], most_rows: float) -> list[int]:
    """Return the first blocks of ``left``, as many as have at most ``most_rows`` together.

    A first block that is larger than that makes a chunk of its own. No chunk has more than
    ``MOST_BLOCKS``.

    Args:
        left: indexes of blocks.
        rows: tells how many rows a block has.
        most_rows: of a chunk.
    """
    totals = list(accumulate(map(rows, left[:MOST_BLOCKS])))
    return left[: max(1, bisect_right(totals, most_rows))]


class OutOfBand:
    """Payloads are files below ``url``; a reply holds the size and sum of one.

    The platform says where a participant has to write, so that nobody's file is taken for
    another's. A file that was changed is asked for again: its author may not be to blame.
    """

    def __init__(self, url: str, key: str) -> None:
        self.folder = remote.join(url, key[:16])  # of the run's dataset
        self._places: dict[str, list[str]] = defaultdict(list)

    def place(self, name: str) -> str:
        """Return the URL of a file of this run and participant, which nobody else can guess."""
        place = remote.join(self.folder, name, f"{secrets.token_hex(8)}.npz")
        self._places[name].append(place)
        return place

    def fetch(self, name: str, receipt: protocol.Receipt, expected: int) -> Payload:
        """Fetch the file that a participant announces.

        Args:
            name: of the participant.
            receipt: its answer.
            expected: bytes of the arrays in the payload.

        Raises:
            ParticipantError: it is larger than it has to be, or no payload.
            DataError: it is not there, or not the one that was announced.
        """
        most = expected + SLACK_BYTES
        if not 0 < receipt.size <= most:
            raise ParticipantError(f"its payload has {receipt.size} bytes, expected at most {most}")
        place = self._places[name][-1]
        data = remote.fetch(place, receipt.size)
        if len(data) != receipt.size or hashlib.sha256(data).hexdigest() != receipt.sha256:
            raise DataError(
                f"the payload at {remote.shown(place)} is not the one that it announced; see who "
                "else can write there"
            )
        return protocol.decode(Payload, data)

    def forget(self, name: str) -> None:
        """Remove the file of a payload that is stored, where the platform may."""
        _remove(self._places[name].pop())

    def close(self) -> None:
        """Remove what nobody fetched; a participant that was late may have written it since."""
        for places in self._places.values():
            for place in places:
                _remove(place)


def _remove(place: str) -> None:
    with suppress(OutputError):
        remote.remove(place)
