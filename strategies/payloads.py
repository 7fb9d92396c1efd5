"""The optimize phase: targets are requested, checked and stored."""

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np

from coopt_fl.core.errors import ParticipantError
from coopt_fl.federation import protocol
from coopt_fl.federation.protocol import require_skips

from . import exchange
from .exchange import FLOAT_BYTES, ID_BYTES, Phase
from .inspection import Inspection
from .routes import Asked, Route

MOST_BLOCKS = 4096
"""Most blocks in a chunk: each has some metadata besides its arrays."""


class Optimize(Phase):
    """Everyone's targets, in chunks of whole units."""

    message_type = protocol.OPTIMIZE

    def __init__(self, task: protocol.Task, inspection: Inspection, route: Route) -> None:
        self.task, self.inspection, self.policy = task, inspection, inspection.policy
        self.config, self.records = inspection.decisions.config, inspection.records
        self.route, self.answer = route, route.answer
        self.asked: dict[str, list[int]] = {}
        self._replan()

    def _replan(self) -> None:
        """Work out again which blocks each participant has left, without those under way."""
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
        """Whether the audit knows what targets to expect of ``name``."""
        return self.inspection.ready(name)

    def ask(self, name: str) -> protocol.Optimize:
        """Ask for the next chunk of blocks that are not stored."""
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
            **self.route.place(name),
        )

    def returned(self, name: str) -> None:
        """Put the last chunk of ``name`` back, to be asked of its present owners."""
        del self.asked[name]
        self._replan()

    def cost(self, name: str) -> int:
        """Count the ids and map sent, and the ids and targets returned."""
        rows = sum(len(self.plan.units[index]) for index in self._next(name))
        return self._bytes(rows) + self._map_bytes(name)

    def accept(self, name: str, answer: Any) -> None:
        """Check the payload, and store its blocks and audit rows."""
        plan = self.plan
        units = {index: plan.units[index] for index in self.asked[name]}
        everything = np.concatenate(list(units.values()))
        size, contributor = self._bytes(len(everything)), plan.contributors.index(name)
        asked = Asked(units, self.config.targets.dim, contributor, size)
        sent, accepted = self.route.fetch(name, answer, asked)
        require_skips(sent.skipped, everything, self.task.on_error)
        known, expected = self.inspection.known(name)
        for index, unit in accepted.items():
            alike = self.inspection.alike(name, index, unit.ids)
            if problem := self.policy.inspect(unit, known, expected, alike):
                raise ParticipantError(f"block {index}: {problem}")
        for index, unit in accepted.items():
            self.route.store(name, sent, index, unit, plan.blocks[index], self.inspection.audited)
        del self.asked[name]
        if beside := self.route.stored(name, answer, accepted.values()):
            self.records.add_upload(name, beside)
        self._show(name)

    def close(self) -> None:
        """Remove payloads that were never fetched."""
        self.route.close()

    def _next(self, name: str) -> list[int]:
        """Return the next chunk of ``name``, small enough that everyone's can be in flight at once.

        Its ids and targets have at least as many bytes as the map, though: where many participants
        take part, fewer are asked at a time, so that traffic is not mostly maps.
        """
        dim, units, map_bytes = self.config.targets.dim, self.plan.units, self._map_bytes(name)
        unfinished = {one for one, blocks in self.left.items() if blocks} | self.asked.keys()
        share = exchange.IN_FLIGHT_BYTES / max(len(unfinished), 1)
        left = max(share - map_bytes, map_bytes) / self._bytes(1)
        most = min(self.config.optimize.chunk_mb * 1e6 / (2 * dim), left)
        return first_chunk(self.left.get(name, []), lambda index: len(units[index]), most)

    def _bytes(self, rows: int) -> int:
        """Return the bytes of the ids sent, and of the ids and targets returned."""
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
    """Return the longest beginning of ``left`` with at most ``most_rows`` rows.

    It has at least one block, however large, and at most ``MOST_BLOCKS``.

    Args:
        left: indexes of blocks.
        rows: returns how many rows a block has.
        most_rows: the most rows of a chunk.
    """
    totals = list(accumulate(map(rows, left[:MOST_BLOCKS])))
    return left[: max(1, bisect_right(totals, most_rows))]
