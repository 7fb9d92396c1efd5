"""What is asked of a participant before its targets, and which answers are accepted."""

import numpy as np
from flwr.app import RecordDict

from coopt_fl.core.errors import ParticipantError
from coopt_fl.core.progress import Progress
from coopt_fl.federation import protocol
from coopt_fl.federation.records import Features, Records
from coopt_fl.targets import Alignment, Recipe

from .exchange import FLOAT_BYTES, ID_BYTES, Work
from .payloads import require_skips

PROJECTIONS = ("projection:pca", "projection:random")
"""How a projection names itself; a PCA of too few samples is replaced by a random one."""

LARGEST_TARGET = float(np.finfo(np.float16).max)

MOST_SKIPPED, LARGEST, MOST_LETTERS = 0.25, 1e6, 100
"""The share of S that may be unreadable, the largest feature, the length of a solver's name."""


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
        recipe: Recipe,
        records: Records,
        reference: str,
        progress: Progress,
    ) -> None:
        self.task, self.recipe, self.records = task, recipe, records
        self.reference, self.progress = reference, progress

    def missing(self, name: str) -> bool:
        """Whether ``name`` is the reference and has not delivered."""
        return name == self.reference and not self.records.has_alignment(name)

    def ask(self, name: str) -> protocol.Project:
        """Ask with the first ids of its shard."""
        recipe, plan = self.recipe, self.records.plan
        blocks = plan.projected(name, recipe.rows_to_project)
        self.records.add_projection(name, blocks)
        ids = plan.projected_ids(blocks, recipe.rows_to_project)
        return protocol.Project(
            self.task, blocks, ids, recipe.dim, recipe.projection, recipe.project_seed
        )

    def cost(self, name: str) -> int:
        """Ids there, the map back."""
        recipe = self.recipe
        weight = FLOAT_BYTES * recipe.dim * self.records.width(name)
        return ID_BYTES * max(recipe.rows_to_project, len(self.records.plan.shared)) + weight

    def accept(self, name: str, content: RecordDict) -> None:
        """Store the projection as the reference's alignment."""
        fitted = _alignment(self.records, name, self.recipe.dim, content)
        _require_projection(fitted, self.records.features([name])[1][name])
        if fitted.solver not in PROJECTIONS:
            raise ParticipantError(f"expected a projection, got {fitted.solver!r}")
        self.records.save_alignment(name, fitted)
        if fitted.solver != f"projection:{self.recipe.projection}":
            self.progress.warn(
                f"the shard of {name} has too few samples for a PCA to "
                f"{self.recipe.dim}: a random projection is used; lower targets.dim"
            )


class Align(Work):
    """Everyone else's alignment to the reference's targets of the shared set."""

    message_type = protocol.ALIGN

    def __init__(self, task: protocol.Task, recipe: Recipe, records: Records) -> None:
        self.task, self.recipe, self.records = task, recipe, records

    def missing(self, name: str) -> bool:
        """Whether the alignment of ``name`` is not stored; it is never fitted twice."""
        return not self.records.has_alignment(name)

    def ask(self, name: str) -> protocol.Align:
        """Ask for the alignment of the features that the participant sent."""
        seed = self.recipe.align_seed(name)
        return protocol.Align(self.task, *self.records.aligning(name), self.recipe.solver, seed)

    def cost(self, name: str) -> int:
        """Features and targets there, the map back."""
        rows, width = len(self.records.plan.shared), self.records.width(name)
        return FLOAT_BYTES * (rows * (width + self.recipe.dim) + width * self.recipe.dim)

    def accept(self, name: str, content: RecordDict) -> None:
        """Store the alignment."""
        fitted = _alignment(self.records, name, self.recipe.dim, content)
        solver = self.recipe.solver
        if fitted.solver != solver:
            raise ParticipantError(f"expected an alignment by {solver}, got {fitted.solver!r}")
        self.records.save_alignment(name, fitted)


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
    return Alignment(answer.weight, answer.bias, answer.solver[:MOST_LETTERS])


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
