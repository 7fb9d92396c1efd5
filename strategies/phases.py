"""The phases before optimize: their requests, and which answers are accepted."""

import numpy as np

from coopt_fl.core.errors import ParticipantError, quoting
from coopt_fl.federation import protocol
from coopt_fl.federation.decisions import Decisions
from coopt_fl.federation.records import Features
from coopt_fl.targets import Alignment

from .exchange import FLOAT_BYTES, ID_BYTES, Phase

LARGEST_TARGET = float(np.finfo(np.float16).max)

MOST_SKIPPED, LARGEST, MOST_LETTERS = 0.25, 1e6, 100
"""The share of S that may be skipped, the largest feature, the length of a solver's name."""


class OneAnswer(Phase):
    """A phase with one answer of each participant, stored in the records as ``stores``."""

    stores: str

    def __init__(self, task: protocol.Task, decisions: Decisions) -> None:
        self.task, self.records = task, decisions.records
        self.recipe, self.progress = decisions.recipe, decisions.progress
        self.random_shards = decisions.random_shards
        self._stored = set[str]()

    def missing(self, name: str) -> bool:
        """Whether the answer of ``name`` is not stored yet; a stored one is not asked for again."""
        if name not in self._stored and self.records.has(self.stores, name):
            self._stored.add(name)
        return name not in self._stored


class Represent(OneAnswer):
    """Everyone's features of the shared set."""

    message_type, answer, stores = protocol.REPRESENT, protocol.Representation, "features"

    def ask(self, name: str) -> protocol.Represent:
        """Ask for the features; the request is recorded, as privacy counts unanswered ones, too."""
        self.records.add_represented(name)
        return protocol.Represent(self.task, self.records.plan.shared)

    def cost(self, name: str) -> int:
        """Count the ids sent, and the ids and features returned."""
        width = self.records.width(name)
        return len(self.records.plan.shared) * (2 * ID_BYTES + FLOAT_BYTES * width)

    def accept(self, name: str, answer: protocol.Representation) -> None:
        """Store the features, if they are finite and of the right samples and width."""
        shared = self.records.plan.shared
        protocol.require_skips(answer.skipped, shared, self.task.on_error)
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
        self.records.save("features", name, ids=answer.ids, features=answer.features)


class Project(OneAnswer):
    """The reference's projection from its features to targets."""

    message_type, answer, stores = protocol.PROJECT, protocol.Aligned, "alignments"

    def __init__(self, task: protocol.Task, decisions: Decisions, reference: str) -> None:
        super().__init__(task, decisions)
        self.reference = reference

    def missing(self, name: str) -> bool:
        """Whether ``name`` is the reference and its projection is not stored yet."""
        return name == self.reference and super().missing(name)

    def ask(self, name: str) -> protocol.Project:
        """Ask with the first ids of its shard, or with S where shards are unlike D."""
        recipe, plan = self.recipe, self.records.plan
        blocks = plan.projected(name, recipe.rows_to_project) if self.random_shards else []
        self.records.add_projection(name, blocks)
        ids = plan.projected_ids(blocks, recipe.rows_to_project)
        return protocol.Project(
            self.task, blocks, ids, recipe.dim, recipe.projection, recipe.project_seed
        )

    def cost(self, name: str) -> int:
        """Count the ids sent and the map returned."""
        recipe = self.recipe
        weight = FLOAT_BYTES * recipe.dim * self.records.width(name)
        return ID_BYTES * max(recipe.rows_to_project, len(self.records.plan.shared)) + weight

    def accept(self, name: str, answer: protocol.Aligned) -> None:
        """Store the projection as the reference's alignment."""
        features = self.records.features([name])[1][name]
        fitted = _alignment(answer, features, self.recipe.dim)
        _require_projection(fitted, features)
        # a PCA of too few samples is replaced by a random projection
        if fitted.solver not in (f"projection:{self.recipe.projection}", "projection:random"):
            raise quoting(
                ParticipantError(f"expected a projection, got {fitted.solver!r}"),
                "expected a projection, got another map",
            )
        self.records.save("alignments", name, **vars(fitted))
        if fitted.solver != f"projection:{self.recipe.projection}":
            where = f"the shard of {name}" if self.random_shards else "the shared set"
            self.progress.warn(
                f"{where} has too few samples for a PCA to "
                f"{self.recipe.dim}: a random projection is used; lower targets.dim"
            )


class Align(OneAnswer):
    """Everyone else's alignment to the reference's targets of the shared set."""

    message_type, answer, stores = protocol.ALIGN, protocol.Aligned, "alignments"

    def ask(self, name: str) -> protocol.Align:
        """Ask for the alignment of the features that the participant sent."""
        seed = self.recipe.align_seed(name)
        return protocol.Align(self.task, *self.records.aligning(name), self.recipe.solver, seed)

    def cost(self, name: str) -> int:
        """Count the features and targets sent, and the map returned."""
        rows, width = len(self.records.plan.shared), self.records.width(name)
        return FLOAT_BYTES * (rows * (width + self.recipe.dim) + width * self.recipe.dim)

    def accept(self, name: str, answer: protocol.Aligned) -> None:
        """Store the alignment."""
        features, solver = self.records.features([name])[1][name], self.recipe.solver
        fitted = _alignment(answer, features, self.recipe.dim)
        if fitted.solver != solver:
            raise quoting(
                ParticipantError(f"expected an alignment by {solver}, got {fitted.solver!r}"),
                f"expected an alignment by {solver}, got another",
            )
        self.records.save("alignments", name, **vars(fitted))


def _alignment(answer: protocol.Aligned, features: Features, dim: int) -> Alignment:
    """Return the map from features (S', m) to targets of width ``dim``; refuse a useless one."""
    width = features.shape[1]
    if answer.weight.shape != (width, dim) or answer.bias.shape != (dim,):
        raise ParticipantError(f"expected an alignment ({width}, {dim}), got {answer.weight.shape}")
    if not all(np.isfinite(array).all() for array in (answer.weight, answer.bias)):
        raise ParticipantError("its alignment holds NaN or infinity")
    if np.abs(features.astype(np.float64) @ answer.weight + answer.bias).max() > LARGEST_TARGET:
        raise ParticipantError(
            "with its alignment, its features give targets too large for float16"
        )
    return Alignment(answer.weight, answer.bias, answer.solver[:MOST_LETTERS])


def _require_features(features: Features, shared: int) -> None:
    """Refuse features (S', m) that no working prior returns."""
    problem = None
    if len(features) < (1 - MOST_SKIPPED) * shared:
        problem = f"it has features of only {len(features)} of the {shared} shared samples"
    elif not np.isfinite(features).all():
        problem = "its features of the shared set hold NaN or infinity"
    elif np.abs(features).max() > LARGEST:
        problem = f"its features of the shared set exceed {LARGEST:g}"
    elif len({(row + 0.0).tobytes() for row in features}) < len(features) / 4:  # -0.0 is 0.0
        problem = "its features of the shared set hardly differ"
    if problem:
        raise ParticipantError(problem)


def _require_projection(fitted: Alignment, features: Features) -> None:
    """Refuse a projection whose axes are not orthogonal or differ in scale: all align to it."""
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
