"""Common parts of all experiments: targets as the platform would make them, and students."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import open_source, shared_set, split_labels
from coopt_fl.federation.groups import Groups
from coopt_fl.federation.plan import Plan, Size
from coopt_fl.optimized.provenance import draft
from coopt_fl.optimized.read import OptimizedDataset
from coopt_fl.policies.assignment import Member, Proportional
from coopt_fl.policies.reference import ReferencePolicy, elect
from coopt_fl.students.checkpoint import LoadedStudent, load_student
from coopt_fl.students.probe import random_student
from coopt_fl.students.train import train_student
from coopt_fl.targets import CONSENSUS, Alignment, Recipe
from coopt_fl.targets.collaborate import apply
from experiments.agreement import Agreed, Array, Rows
from experiments.clocks import CpuClock, Stopwatch, TimedJudge, resumed
from experiments.precomputed import features_of
from experiments.scales import Study
from experiments.specialists import loadable

# fmt: off
NAMES = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa",
)
# fmt: on
"""Names of participants, in order, as in the shipped configurations."""

SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class Made:
    """Targets made in some way, and the time that they took.

    Attributes:
        rows: int64 (N,), rows of the training split, ascending.
        targets: float32 (N, n).
        participants: int16 (N,), index of each target's participant; -1 for averages.
        optimize: Seconds of optimization of each participant, alone on the device.
        represent: Seconds for all participants' features of the shared set.
        align: Seconds for uniformity, reference and alignment.
        on_s: float32 (S, n), each participant's targets of the shared set.
        parts: Widths of the parts of a target, if several teachers' targets are concatenated.
    """

    rows: Rows
    targets: Array
    participants: NDArray[np.int16]
    optimize: list[float]
    represent: float = 0.0
    align: float = 0.0
    on_s: list[Array] = field(default_factory=list)
    parts: tuple[int, ...] = ()

    @property
    def preparation(self) -> tuple[float, float]:
        """Seconds before training with one device for all participants, and with one for each.

        They are counted as in :mod:`coopt_fl.optimized.preparation`.
        """
        shared = self.represent + self.align
        return sum(self.optimize) + shared, max(self.optimize, default=0.0) + shared


@dataclass(frozen=True, eq=False, kw_only=True)
class Collaborated(Made):
    """Targets that participants made together.

    Attributes:
        agreed: What they agreed on before.
    """

    agreed: Agreed


class Lab:
    """A study's data and its priors' features, and methods that make targets and train students.

    Attributes:
        cell: Name of the cell that is being measured; an interrupted training resumes in the same
            cell.
    """

    def __init__(self, study: Study) -> None:
        self.study, self.cell = study, ""
        self.source = open_source(study.data)
        self.all = self.source.ids
        self.judge = TimedJudge(study.data, study.probe)
        self._features: dict[tuple[str, str], tuple[Array, float]] = {}

    def features(self, spec: str, split: str = "train") -> tuple[Array, float]:
        """Return a prior's features (N, m) of all images of a split, and the seconds they took."""
        if (spec, split) not in self._features:
            known = loadable(spec, self.study)
            self._features[spec, split] = features_of(known, self.study, split)
        return self._features[spec, split]

    def labels(self) -> list[NDArray[np.int64]]:
        """Return the labels of the training and of the test images, int64 (N,) each."""
        found = [split_labels(self.study.data, split) for split in SPLITS]
        labels = [one for one in found if one is not None]
        assert len(labels) == len(SPLITS), "this experiment needs labels"
        return labels

    def domains(self, split: str) -> NDArray[np.str_]:
        """Return the domain (N,) of each image of a split; ``all`` if the source has no domains.

        Raises:
            ConfigError: The study's crowd needs domains.
        """
        source = open_source(self.study.data, split)
        known = source.column("domain")
        if known is None and self.study.data.source == "parquet" and self.study.crowd:
            raise ConfigError(
                f"{source.name} has no column `domain`: give --root (in a queue --root crowd=) the "
                "folder that `python -m experiments.domains` wrote"
            )
        return np.full(len(source), "all") if known is None else known

    def shared(self, size: int, seed: int) -> Rows:
        """Return the rows of a shared set of ``size`` samples."""
        return shared_set(self.all, size, seed)

    def agree(
        self,
        seed: int,
        features: Mapping[str, Array] | None = None,
        *,
        priors: Sequence[str] | None = None,
        reference: str = CONSENSUS,
        elect: ReferencePolicy = elect,
        solver: str = "ridge",
        projection: str = "pca",
        consensus: str = "pca",
        dim: int | None = None,
        shared: int | None = None,
        audit: float | None = None,
        order: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        groups: Groups | None = None,
        on_s: Mapping[str, Array] | None = None,
    ) -> Agreed:
        """Do all steps of the method that precede optimization.

        Args:
            seed: Seed of the plan, the shared set and all random draws.
            features: float32 (N, m_k) of all images, by participant; default: those of ``priors``.
            priors: One for each participant; default: the study's own.
            reference: The reference that is requested: ``consensus`` or ``best``.
            elect: Elects the reference.
            solver: See :func:`coopt_fl.targets.fit_alignment`.
            projection: See :func:`coopt_fl.targets.fit_projection`.
            consensus: See :func:`coopt_fl.targets.projection.consensus_targets`.
            dim: Width n of a target; default: the study's.
            shared: Size of the shared set; default: the study's.
            audit: Samples for the audit, as a share of a block; default: the study's.
            order: Order of the participants in the plan; default: that of the features.
            weights: Relative sizes of their shards, in that order; default: equal.
            groups: Groups of rows that no block mixes: each participant's own, instead of
                ``weights``, or regions, whose blocks have no owner yet.
            on_s: The features of the shared set that participants send, if they are not the true
                ones.

        Raises:
            ParticipantError: The platform's election finds no alignable prior.
        """
        specs = priors or self.study.priors
        if not features:
            names = NAMES[: len(specs)]
            named = zip(names, specs, strict=True)
            features = {name: self.features(spec)[0] for name, spec in named}
        roster = list(order or features)
        each = zip(roster, weights or [1.0] * len(roster), strict=True)
        members = [Member(name, max(weight, 0.0)) for name, weight in each]
        study = self.study
        audit = study.audit if audit is None else audit
        size = Size(study.block_rows, audit, shared or study.shared)
        plan = Plan.make(self.all, size, seed, members, Proportional(), groups)
        recipe = Recipe(dim or study.dim, projection, solver, seed, consensus)
        watch = Stopwatch()
        on_s = on_s or {name: x[plan.shared] for name, x in features.items()}
        election = elect(on_s, reference, recipe.dim, seed)
        best, fixed = election.reference, dict[str, Alignment]()
        if best != CONSENSUS:
            blocks = plan.projected(best, recipe.rows_to_project)
            rows = plan.projected_ids(blocks, recipe.rows_to_project)
            fixed[best] = recipe.project(features[best][rows])
        targets = recipe.shared_targets(on_s, best, election.accepted, fixed.get(best))
        made = {name: fixed.get(name) or recipe.align(name, x, targets) for name, x in on_s.items()}
        return Agreed(features, plan, recipe, on_s, election, targets, made, watch.seconds)

    def collaborate(
        self,
        seed: int,
        *,
        replicas: int = 1,
        assign: Callable[[Agreed], Mapping[str, Any]] | None = None,
        **how: Any,
    ) -> Collaborated:
        """Return the targets of a collaboration.

        Args:
            seed: Seed of the plan, the shared set and all random draws.
            replicas: Number of participants that make each target; their targets are averaged.
            assign: Returns ``weights`` or ``groups`` for :meth:`agree`, given the agreement with
                equal shards. Its time is counted as alignment.
            how: Further arguments of :meth:`agree`.
        """
        agreed = self.agree(seed, **how)
        watch = Stopwatch()
        given = assign(agreed) if assign else {}
        seconds = agreed.seconds + watch.seconds
        if given:
            elected = agreed.election
            agreed = self.agree(seed, **how | {"elect": lambda *_: elected}, **given)
        plan, specs = agreed.plan, how.get("priors") or self.study.priors
        each = [self.features(spec)[1] / len(self.all) for spec in specs]
        units = [[plan.units[index] for index in plan.blocks_of(name)] for name in agreed.features]
        targets, participants = agreed.fused(replicas)
        return Collaborated(
            rows=self.all,
            targets=targets,
            participants=participants,
            optimize=[replicas * sum(map(len, u)) * s for u, s in zip(units, each, strict=True)],
            represent=sum(each) * len(plan.shared),
            align=seconds,
            on_s=[agreed.targets(name, x) for name, x in agreed.on_s.items()],
            agreed=agreed,
        )

    def centralize(self, spec: str, seed: int) -> Made:
        """Return the targets of one prior for every sample: the baseline without collaboration."""
        x, seconds = self.features(spec)
        dim = min(self.study.dim, x.shape[1])
        agreed = self.agree(seed, {"central": x}, reference="best", dim=dim)
        return Made(self.all, *agreed.fused(), optimize=[seconds])

    def every_prior(
        self, seed: int, share: float = 1.0, *, priors: Sequence[str] | None = None
    ) -> Made:
        """Return the concatenated targets of every prior for a share of the samples.

        This is the ceiling of multi-teacher distillation: one head per teacher, whose targets are
        brought to one scale by PHI-S (Ranzinger et al. 2024). Its Hadamard rotation is left out,
        because it makes no difference to a linear last layer with squared error or cosine loss.
        """
        rows = self.shared(round(share * len(self.all)), derive_seed(seed, "every prior"))
        found = [self.features(spec) for spec in priors or self.study.priors]
        scaled = []
        for x, _ in found:
            recipe = Recipe(min(self.study.dim, x.shape[1], len(rows) // 2), seed=seed)
            y = apply(recipe.project(x[rows[: recipe.rows_to_project]]), x[rows])
            scaled.append(y / np.sqrt(np.square(y).mean()))
        return Made(
            rows=rows,
            targets=np.concatenate(scaled, axis=1),
            participants=np.full(len(rows), -1, np.int16),
            optimize=[share * cost for _, cost in found],
            parts=tuple(y.shape[1] for y in scaled),
        )

    def student(
        self,
        made: Made | None,
        seed: int,
        *,
        every: int | None = None,
        judge: Callable[[LoadedStudent], Mapping[str, Any]] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Train a student on ``made``, or without targets, and return its curve.

        Args:
            made: The targets; None for an objective without targets.
            seed: Seed of the training.
            every: Epochs between two probes; default: only after the last epoch.
            judge: Judges the trained student, instead of all probes.
            changes: Changes of the study's ``student``, such as ``objective="byol"``.
        """
        config = replace(self.study.student, **changes)
        dataset = None if made is None else self.dataset(made)
        with resumed(f"{self.cell} {seed} {config} {dataset and dataset.digest}") as folder:
            clock = CpuClock(folder / "busy.txt", self.judge)
            trained = train_student(
                dataset, Config(seed, self.study.data, student=config), folder, devices=1,
                begun=clock.begun, progress=clock.epoch,
                watch=None if judge else self.judge, watch_every=every or config.epochs,
            )  # fmt: skip
            judged = {} if judge is None else judge(load_student(trained.checkpoint))
            busy = clock.found
        end = trained.curve[-1]
        together, each = made.preparation if made else (0.0, 0.0)
        return {
            "accuracy": end.accuracy,
            "spread": end.spread,
            "training s": end.seconds,
            "preparation s, one device": together,
            "preparation s, one each": each,
            **busy,
            "curve": [asdict(point) for point in trained.curve],
            **judged,
        }

    def random(self, seed: int, **changes: Any) -> float | None:
        """Return the accuracy of the student before any training."""
        return self.judge(self.untrained(seed, **changes)).accuracy

    def untrained(self, seed: int, **changes: Any) -> LoadedStudent:
        """Return the student before any training, with batch norm as built."""
        config = replace(self.study.student, **changes)
        return random_student(config, self.study.data, seed)

    def dataset(self, made: Made) -> OptimizedDataset:
        """Return the targets as an optimized dataset in memory."""
        source = {"fingerprint": self.source.fingerprint}
        known = draft(config=Config(), source=source, reference="consensus")
        targets, ids = made.targets.astype(np.float16), self.all[made.rows]
        digest = hashlib.sha256(repr(made.parts).encode() + ids.tobytes() + targets.tobytes())
        known = replace(known, dim=targets.shape[1], digest=digest.hexdigest())
        folder = Path("in memory")
        return OptimizedDataset(folder, ids, targets, made.participants, known, made.parts)
