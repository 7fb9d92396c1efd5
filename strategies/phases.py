"""What the platform asks of one participant in each phase, and what it accepts as an answer."""

from collections import deque
from typing import Any, Protocol

import numpy as np
from flwr.app import RecordDict

from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ParticipantError
from coopt_fl.core.progress import Progress
from coopt_fl.core.seeding import derive_seed
from coopt_fl.federation import protocol
from coopt_fl.federation.planning import projection_part
from coopt_fl.federation.records import Features, Records
from coopt_fl.policies.assignment import take_chunk
from coopt_fl.targets import Alignment

from .fusion import accept_payload, require_skips
from .inspection import Inspection
from .routes import route_of

PROJECTIONS = ("projection:pca", "projection:random")
"""How a projection names itself; a PCA of too few samples is replaced by a random one."""

IN_FLIGHT_BYTES = 128_000_000
"""Most bytes of arrays under way at once; a single message may have more."""

ID_BYTES, FLOAT_BYTES = 8, 4

LARGEST_TARGET = float(np.finfo(np.float16).max)

MOST_SKIPPED, LARGEST, MOST_LETTERS = 0.25, 1e6, 100
"""The share of S that may be unreadable, the largest feature, the length of a solver's name."""


class Phase(Protocol):
    """One phase of the protocol, asked of every participant that has something to do in it."""

    message_type: str

    def ask(self, name: str) -> Any:
        """Return the next request to participant ``name``."""

    def cost(self, name: str) -> int:
        """Return the bytes of the arrays in the next request to ``name`` and in its answer."""

    def accept(self, name: str, content: RecordDict) -> None:
        """Check and store the answer to the last request.

        Raises:
            ParticipantError: the answer is not acceptable.
        """

    def returned(self, name: str) -> None:
        """Take back the last request to ``name``, which came to nothing."""
        return


class Work(Phase, Protocol):
    """A phase that ends when nothing is missing."""

    def missing(self, name: str) -> bool:
        """Whether something of ``name`` is not stored yet."""


class Represent(Work):
    """Everyone's features of the shared set."""

    message_type = protocol.REPRESENT

    def __init__(self, task: protocol.Task, records: Records) -> None:
        self.task, self.records = task, records

    def missing(self, name: str) -> bool:
        """Whether the features of ``name`` are not stored."""
        return not self.records.has_features(name)

    def ask(self, name: str) -> protocol.Represent:
        """Ask for features, of which privacy counts each that is asked for."""
        self.records.add_represented(name)
        return protocol.Represent(self.task, self.records.plan.shared)

    def cost(self, name: str) -> int:
        """Ids there, features back."""
        width = self.records.width(name)
        return len(self.records.plan.shared) * (ID_BYTES + FLOAT_BYTES * width)

    def accept(self, name: str, content: RecordDict) -> None:
        """Store features of the right samples, width and finiteness."""
        answer = protocol.decode(protocol.Representation, content)
        shared = self.records.plan.shared
        require_skips(answer.skipped, shared, self.task.on_error)
        expected = np.setdiff1d(shared, answer.skipped)
        shape = (len(expected), self.records.width(name))
        if not np.array_equal(answer.ids, expected) or answer.features.shape != shape:
            raise ParticipantError(
                f"expected features {shape} of the shared set, got {answer.features.shape}"
            )
        _require_features(answer.features, len(shared))
        settled = self.records.shared_targets()
        if settled is not None and len(np.setdiff1d(settled[0], answer.ids)):
            raise ParticipantError("it cannot read shared samples that all others can")
        self.records.save_features(name, answer.ids, answer.features)


class Project(Work):
    """The reference's projection from its features to targets."""

    message_type = protocol.PROJECT

    def __init__(
        self,
        task: protocol.Task,
        config: Config,
        records: Records,
        reference: str,
        progress: Progress,
    ) -> None:
        self.task, self.config, self.records = task, config, records
        self.reference, self.progress = reference, progress

    def missing(self, name: str) -> bool:
        """Whether ``name`` is the reference and has not delivered."""
        return name == self.reference and not self.records.has_alignment(name)

    def ask(self, name: str) -> protocol.Project:
        """Ask with the first ids of its shard."""
        dim, method = self.config.targets.dim, self.config.targets.projection
        blocks, ids = projection_part(self.records.plan, name, dim)
        self.records.add_projection(name, blocks)
        seed = derive_seed(self.config.seed, "project")
        return protocol.Project(self.task, blocks, ids, dim, method, seed)

    def cost(self, name: str) -> int:
        """Ids there, the map back."""
        dim = self.config.targets.dim
        _, ids = projection_part(self.records.plan, name, dim)
        return len(ids) * ID_BYTES + FLOAT_BYTES * dim * self.records.width(name)

    def accept(self, name: str, content: RecordDict) -> None:
        """Store the projection as the reference's alignment."""
        fitted = _alignment(self.records, name, self.config.targets.dim, content)
        _require_projection(fitted, self.records.features([name])[1][name])
        if fitted.solver not in PROJECTIONS:
            raise ParticipantError(f"expected a projection, got {fitted.solver!r}")
        self.records.save_alignment(name, fitted)
        if fitted.solver != f"projection:{self.config.targets.projection}":
            self.progress.warn(
                f"the shard of {name} has too few samples for a PCA to "
                f"{self.config.targets.dim}: a random projection is used; lower targets.dim"
            )


class Align(Work):
    """Everyone else's alignment to the reference's targets of the shared set."""

    message_type = protocol.ALIGN

    def __init__(self, task: protocol.Task, config: Config, records: Records) -> None:
        self.task, self.config, self.records = task, config, records

    def missing(self, name: str) -> bool:
        """Whether the alignment of ``name`` is not stored; it is never fitted twice."""
        return not self.records.has_alignment(name)

    def ask(self, name: str) -> protocol.Align:
        """Ask for the alignment of the features that the participant sent."""
        features, targets = self.records.aligning(name)
        seed = derive_seed(self.config.seed, "align", name)
        return protocol.Align(self.task, features, targets, self.config.targets.solver, seed)

    def cost(self, name: str) -> int:
        """Features and targets there, the map back."""
        rows, width = len(self.records.plan.shared), self.records.width(name)
        dim = self.config.targets.dim
        return FLOAT_BYTES * (rows * (width + dim) + width * dim)

    def accept(self, name: str, content: RecordDict) -> None:
        """Store the alignment."""
        fitted = _alignment(self.records, name, self.config.targets.dim, content)
        solver = self.config.targets.solver
        if fitted.solver != solver:
            raise ParticipantError(f"expected an alignment by {solver}, got {fitted.solver!r}")
        self.records.save_alignment(name, fitted)


class Optimize(Work):
    """Everyone's targets, in chunks of whole units."""

    message_type = protocol.OPTIMIZE

    def __init__(
        self,
        task: protocol.Task,
        config: Config,
        records: Records,
        inspection: Inspection,
        progress: Progress,
    ) -> None:
        self.task, self.config, self.records = task, config, records
        self.inspection, self.progress = inspection, progress
        self.route = route_of(config.payload.route, records.key)
        self.asked: dict[str, list[int]] = {}
        self.plan = records.plan
        self._replan()

    def _replan(self) -> None:
        """Look anew at who has what left to do; what is under way stays so."""
        self.plan = plan = self.records.plan
        stored = self.records.has_unit
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
            upload=self.route.place(name),
        )

    def returned(self, name: str) -> None:
        """Put the last chunk of ``name`` back in front, for whoever has to do it now."""
        self.route.forget(name)
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
        payload, size = self.route.payload(name, content, self._bytes(len(everything)))
        require_skips(payload.skipped, everything, self.task.on_error)
        contributor = plan.contributors.index(name)
        accepted = accept_payload(payload, units, self.config.targets.dim, contributor)
        for index, unit in accepted.items():
            self.inspection.inspect(name, index, unit)
        for index, unit in accepted.items():
            self.inspection.store(index, unit)
        del self.asked[name]
        self.route.forget(name)
        self.records.add_upload(name, size)
        self.rows[name][0] += sum(len(plan.blocks[index]) for index in units)
        self._show(name)

    def _bytes(self, rows: int) -> int:
        """Return the bytes of the ids there, and of ids and targets back."""
        return rows * (2 * ID_BYTES + 2 * self.config.targets.dim)

    def _rows(self, index: int) -> int:
        return len(self.records.plan.units[index])

    def _most_rows(self, name: str) -> int:
        """Return how many rows a chunk may have, that everyone's may be in flight at once."""
        dim = self.config.targets.dim
        share = IN_FLIGHT_BYTES / len(self.records.plan.contributors)
        left = share - FLOAT_BYTES * dim * self.records.width(name)
        most = min(self.config.optimize.chunk_mb * 1e6 / (2 * dim), left / self._bytes(1))
        return max(int(most), 0)

    def _show(self, name: str) -> None:
        """Show what ``name`` has done of its shard."""
        done, total = self.rows[name]
        self.progress.show(f"  {name}", done, total, "samples")


def _alignment(records: Records, name: str, dim: int, content: RecordDict) -> Alignment:
    answer = protocol.decode(protocol.Aligned, content)
    width = records.width(name)
    if answer.weight.shape != (width, dim) or answer.bias.shape != (dim,):
        raise ParticipantError(f"expected an alignment ({width}, {dim}), got {answer.weight.shape}")
    if not all(np.isfinite(array).all() for array in (answer.weight, answer.bias)):
        raise ParticipantError("its alignment holds NaN or infinity")
    targets = records.features([name])[1][name].astype(np.float64) @ answer.weight + answer.bias
    if np.abs(targets).max() > LARGEST_TARGET:
        raise ParticipantError("its alignment makes targets too large for float16 of its features")
    return Alignment(answer.weight, answer.bias, 0.0, answer.solver[:MOST_LETTERS])


def _require_features(features: Features, shared: int) -> None:
    """Refuse features (S', m) that nothing can be made of, whatever prior they are of."""
    problem = None
    if len(features) < (1 - MOST_SKIPPED) * shared:
        problem = f"of {shared} shared samples it has features of {len(features)}"
    elif not np.isfinite(features).all():
        problem = "its features of the shared set hold NaN or infinity"
    elif np.abs(features).max() > LARGEST:
        problem = f"its features of the shared set exceed {LARGEST:g}"
    elif len({(row + 0.0).tobytes() for row in features}) < len(features) / 4:  # -0.0 is 0.0
        problem = "its features of the shared set hardly differ"
    if problem:
        raise ParticipantError(problem)


def _require_projection(fitted: Alignment, features: Features) -> None:
    """Refuse a projection that is not orthogonal axes to one scale, for everyone aligns to it."""
    weight = fitted.weight.astype(np.float64)
    gram = weight.T @ weight
    scale = np.trace(gram) / len(gram)
    targets = features @ weight + fitted.bias
    sizes = [
        float(np.sqrt(np.mean(np.square(y)))) for y in (targets - targets.mean(axis=0), targets)
    ]
    if (
        np.abs(gram - scale * np.eye(len(gram))).max() > 0.01 * scale
        or not 0.2 < min(sizes) <= max(sizes) < 5
    ):
        raise ParticipantError(
            "expected a projection to orthogonal axes and to targets of unit RMS, got another "
            f"map, which makes targets of RMS {sizes[1]:.3g} of the shared set"
        )
