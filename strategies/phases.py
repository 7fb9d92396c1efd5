"""What the platform asks of one participant in each phase, and what it accepts as an answer."""

from collections import deque
from typing import Any, Protocol

import numpy as np
from flwr.app import Message

from coopt_fl import protocol
from coopt_fl.errors import ParticipantError
from coopt_fl.optimized.plan import Plan
from coopt_fl.progress import Silent
from coopt_fl.schema import Config
from coopt_fl.seeding import derive_seed
from coopt_fl.targets import Alignment
from strategies.assignment import chunk_blocks
from strategies.exchange import AGAIN, content_of
from strategies.fusion import accept_payload, require_skips
from strategies.planning import projection_ids
from strategies.records import Features, Records

IN_FLIGHT_BYTES = 128_000_000
"""Most bytes of arrays under way at once; a single message may have more."""

ID_BYTES, FLOAT_BYTES = 8, 4


class Phase(Protocol):
    """One phase of the protocol, asked of every participant that has something to do in it."""

    message_type: str

    def ask(self, name: str) -> Any:
        """Return the next request to participant ``name``, or None when it has no more to do."""

    def cost(self, name: str) -> int:
        """Return the bytes of the arrays in the next request to ``name`` and in its answer."""

    def accept(self, name: str, reply: Message) -> int:
        """Check and store the answer to the last request; return the samples it covers.

        Raises:
            CooptError: the participant's own, or ParticipantError for an unacceptable answer.
        """


class Represent:
    """Everyone's features of the shared set."""

    message_type = protocol.REPRESENT

    def __init__(self, task: protocol.Task, plan: Plan, records: Records) -> None:
        self.task, self.plan, self.records = task, plan, records

    def ask(self, name: str) -> protocol.Represent | None:
        """Ask for features unless they are stored."""
        if self.records.has_features(name):
            return None
        return protocol.Represent(self.task, self.plan.shared)

    def cost(self, name: str) -> int:
        """Ids there, features back."""
        return len(self.plan.shared) * (ID_BYTES + FLOAT_BYTES * self.records.width(name))

    def accept(self, name: str, reply: Message) -> int:
        """Store features of the right samples, width and finiteness."""
        answer = protocol.decode(protocol.Representation, content_of(reply))
        require_skips(answer.skipped, self.plan.shared, self.task.on_error)
        expected = np.setdiff1d(self.plan.shared, answer.skipped)
        shape = (len(expected), self.records.width(name))
        if not np.array_equal(answer.ids, expected) or answer.features.shape != shape:
            raise ParticipantError(
                f"expected features {shape} of the shared set, got {answer.features.shape}"
            )
        if not np.isfinite(answer.features).all():
            raise ParticipantError("its features of the shared set hold NaN or infinity")
        self.records.save_features(name, answer.ids, answer.features)
        return len(expected)


class Project:
    """The reference's projection from its features to targets."""

    message_type = protocol.PROJECT

    def __init__(
        self,
        task: protocol.Task,
        config: Config,
        plan: Plan,
        records: Records,
        reference: str,
        progress: Silent,
    ) -> None:
        self.task, self.config, self.plan = task, config, plan
        self.records, self.reference, self.progress = records, reference, progress

    def ask(self, name: str) -> protocol.Project | None:
        """Ask the reference alone, with the first ids of its shard."""
        if name != self.reference or self.records.alignment(name) is not None:
            return None
        dim, method = self.config.targets.dim, self.config.targets.projection
        ids = projection_ids(self.plan, name, dim)
        return protocol.Project(
            self.task, ids, dim, method, derive_seed(self.config.seed, "project")
        )

    def cost(self, name: str) -> int:
        """Ids there, the map back."""
        dim = self.config.targets.dim
        ids = projection_ids(self.plan, name, dim)
        return len(ids) * ID_BYTES + FLOAT_BYTES * dim * self.records.width(name)

    def accept(self, name: str, reply: Message) -> int:
        """Store the projection as the reference's alignment."""
        rows = _accept_alignment(self.records, name, self.config.targets.dim, reply)
        fitted = self.records.alignment(name)
        if fitted and fitted.solver != f"projection:{self.config.targets.projection}":
            self.progress.warn(
                f"the shard of {name} has too few samples for a PCA to "
                f"{self.config.targets.dim}: a random projection is used; lower targets.dim"
            )
        return rows


class Align:
    """Everyone else's alignment to the reference's targets of the shared set."""

    message_type = protocol.ALIGN

    def __init__(
        self,
        task: protocol.Task,
        config: Config,
        records: Records,
        features: dict[str, Features],
        targets: Features,
    ) -> None:
        self.task, self.config, self.records = task, config, records
        self.features, self.targets = features, targets

    def ask(self, name: str) -> protocol.Align | None:
        """Ask for the alignment unless it is stored; it is never fitted twice."""
        if self.records.alignment(name) is not None:
            return None
        seed = derive_seed(self.config.seed, "align", name)
        return protocol.Align(
            self.task, self.features[name], self.targets, self.config.targets.solver, seed
        )

    def cost(self, name: str) -> int:
        """Features and targets there, the map back."""
        rows, width = len(self.features[name]), self.records.width(name)
        dim = self.config.targets.dim
        return FLOAT_BYTES * (rows * (width + dim) + width * dim)

    def accept(self, name: str, reply: Message) -> int:
        """Store the alignment."""
        return _accept_alignment(self.records, name, self.config.targets.dim, reply)


class Optimize:
    """Everyone's targets, in chunks of whole blocks."""

    message_type = protocol.OPTIMIZE

    def __init__(
        self, task: protocol.Task, config: Config, plan: Plan, records: Records, progress: Silent
    ) -> None:
        self.task, self.config, self.plan = task, config, plan
        self.records, self.progress = records, progress
        self.chunks = {name: self._chunks(name) for name in plan.contributors}
        self.done = {name: plan.rows_of(name) - self._rows_left(name) for name in self.chunks}
        self.asked: dict[str, list[int]] = {}
        for name in plan.contributors:
            self._show(name)

    def ask(self, name: str) -> protocol.Optimize | None:
        """Ask for the next chunk that is not stored."""
        if not self.chunks[name]:
            return None
        alignment = self.records.alignment(name)
        if alignment is None:
            raise ParticipantError(f"{name} has no alignment; {AGAIN}")
        self.asked[name] = self.chunks[name].popleft()
        ids = [self.plan.blocks[index] for index in self.asked[name]]
        return protocol.Optimize(
            task=self.task,
            contributor=self.plan.contributors.index(name),
            blocks=self.asked[name],
            sizes=[len(block) for block in ids],
            ids=np.concatenate(ids),
            weight=alignment.weight,
            bias=alignment.bias,
        )

    def cost(self, name: str) -> int:
        """Ids and the map there, ids and targets back."""
        dim = self.config.targets.dim
        blocks = self.chunks[name][0] if self.chunks[name] else []
        rows = sum(len(self.plan.blocks[index]) for index in blocks)
        return rows * (2 * ID_BYTES + 2 * dim) + FLOAT_BYTES * dim * self.records.width(name)

    def accept(self, name: str, reply: Message) -> int:
        """Check the payload and store its blocks."""
        payload = protocol.decode(protocol.Payload, content_of(reply))
        asked = np.concatenate([self.plan.blocks[index] for index in self.asked[name]])
        require_skips(payload.skipped, asked, self.task.on_error)
        expected = {index: self.plan.blocks[index] for index in self.asked[name]}
        contributor = self.plan.contributors.index(name)
        accepted = accept_payload(payload, expected, self.config.targets.dim, contributor)
        for index, block in accepted.items():
            self.records.state.save_block(index, block)
        rows = sum(len(ids) for ids in expected.values())
        self.done[name] += rows
        self._show(name)
        return rows

    def _chunks(self, name: str) -> deque[list[int]]:
        """Cut what ``name`` has left so that all that is in flight together stays bounded."""
        state = self.records.state
        left = [index for index in self.plan.blocks_of(name) if not state.has_block(index)]
        share = IN_FLIGHT_BYTES / len(self.plan.contributors)
        most_bytes = min(self.config.optimize.chunk_mb * 1e6, share)
        most_rows = int(most_bytes // (2 * self.config.targets.dim))
        return deque(chunk_blocks(left, [len(self.plan.blocks[i]) for i in left], most_rows))

    def _rows_left(self, name: str) -> int:
        return sum(len(self.plan.blocks[index]) for chunk in self.chunks[name] for index in chunk)

    def _show(self, name: str) -> None:
        total = self.plan.rows_of(name)
        self.progress.show(f"  {name}", self.done[name], total, "samples")


def _accept_alignment(records: Records, name: str, dim: int, reply: Message) -> int:
    answer = protocol.decode(protocol.Aligned, content_of(reply))
    width = records.width(name)
    if answer.weight.shape != (width, dim) or answer.bias.shape != (dim,):
        raise ParticipantError(f"expected an alignment ({width}, {dim}), got {answer.weight.shape}")
    numbers = (answer.weight, answer.bias, np.array(answer.r2_heldout))
    if not all(np.isfinite(array).all() for array in numbers):
        raise ParticipantError("its alignment holds NaN or infinity")
    alignment = Alignment(answer.weight, answer.bias, answer.r2_heldout, answer.solver)
    records.save_alignment(name, alignment)
    return 0
