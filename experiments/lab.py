"""What every experiment does: targets as a collaboration would make them, and students on them.

Features are computed once for each prior and kept in the cache with the seconds that they took, so
that a table of targets costs only its linear algebra. Experiments at work at once compute theirs
one after another, for they would share the cores that decode images.
"""

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl.config.schema import Config, RuntimeConfig
from coopt_fl.core.cache import cache_dir, exclusive
from coopt_fl.core.files import atomic
from coopt_fl.core.runtime import devices, pick_device
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import Source, open_source, shared_set
from coopt_fl.optimized.provenance import draft
from coopt_fl.optimized.read import OptimizedDataset
from coopt_fl.priors import Prior, load_prior
from coopt_fl.students import Judge, train_student
from coopt_fl.students.probe import fit_probe, random_student, split_labels
from coopt_fl.targets import (
    Alignment,
    consensus_targets,
    fit_alignment,
    fit_projection,
    represent,
    uniformity,
)
from experiments.scales import Study

Array = NDArray[np.float32]
Rows = NDArray[np.int64]


SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class Made:
    """Targets that some way of making them gave.

    Attributes:
        rows: int64 (N,), of the training split, ascending.
        targets: float32 (N, n).
        participants: int16 (N,): who made each; -1 where several did.
        optimize: Seconds of each participant alone on the device.
        represent: Seconds of all participants' features of the shared set.
        align: Seconds of uniformity, reference and alignment.
        r2: Held-out R2 of each participant.
        on_s: Each participant's float32 (S, n) of the shared set.
        parts: Widths of what stands side by side in a target, if several teachers' do.
    """

    rows: Rows
    targets: Array
    participants: NDArray[np.int16]
    optimize: list[float]
    represent: float
    align: float
    r2: list[float]
    on_s: list[Array]
    parts: tuple[int, ...] = ()

    @property
    def preparation(self) -> dict[str, float]:
        """Seconds before training, as :mod:`coopt_fl.optimized.preparation` counts them."""
        shared = self.represent + self.align
        return {
            "sum": sum(self.optimize) + shared,
            "max": max(self.optimize, default=0.0) + shared,
        }


class Lab:
    """A study's data, the features of its priors, and students trained on what is made of them."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.source = open_source(study.data)
        self.all = np.arange(len(self.source.ids))
        self.judge = Judge(study.data)
        self._features: dict[tuple[str, str], tuple[Array, float]] = {}

    def features(self, spec: str, split: str = "train") -> tuple[Array, float]:
        """Return a prior's features (N, m) of all images of a split, and the seconds they took."""
        if (spec, split) not in self._features:
            self._features[spec, split] = self._cached(spec, split)
        return self._features[spec, split]

    def shared(self, size: int, seed: int) -> Rows:
        """Return the rows of a shared set."""
        return shared_set(self.all, size, seed)

    def collaborate(
        self,
        seed: int,
        *,
        priors: Sequence[str] | None = None,
        reference: str = "consensus",
        solver: str = "ridge",
        projection: str = "pca",
        shared: int | None = None,
        replicas: int = 1,
        by_r2: bool = False,
    ) -> Made:
        """Return the targets of a collaboration in which each participant has an equal shard.

        Args:
            seed: Of the shards, the shared set, and what draws.
            priors: One for each participant; the study's own unless given.
            reference: ``consensus``, ``best`` or ``worst`` by uniformity, or ``random``.
            solver: See :func:`coopt_fl.targets.fit_alignment`.
            projection: See :func:`coopt_fl.targets.fit_projection`.
            shared: Samples of the shared set; the study's own unless given.
            replicas: Participants that make each sample's target; theirs are averaged.
            by_r2: Give shards in proportion to the held-out R2 instead of equal ones.
        """
        found = [self.features(spec) for spec in priors or self.study.priors]
        xs = [values for values, _ in found]
        shards = self.shards(len(xs), seed)
        started = time.perf_counter()
        at = self.shared(shared or self.study.shared, seed)
        on_s = [x[at] for x in xs]
        maps = self._maps(xs, on_s, shards, seed, reference, solver, projection)
        align = time.perf_counter() - started
        represent = sum(seconds for _, seconds in found) * len(at) / len(self.all)
        r2 = [one.r2_heldout for one in maps]
        if by_r2:
            shards = self.shards(len(xs), seed, r2)
        shares = [
            seconds * replicas * len(rows) / len(self.all)
            for (_, seconds), rows in zip(found, shards, strict=True)
        ]
        targets = np.zeros((len(self.all), self.study.dim), np.float32)
        participants = np.zeros(len(self.all), np.int16)
        for k, rows in enumerate(shards):
            participants[rows] = k if replicas == 1 else -1
            for r in range(replicas):
                other = (k + r) % len(xs)
                targets[rows] += apply(maps[other], xs[other][rows]) / replicas
        aligned = [apply(one, x) for one, x in zip(maps, on_s, strict=True)]
        return Made(self.all, targets, participants, shares, represent, align, r2, aligned)

    def centralize(self, spec: str, seed: int) -> Made:
        """Return the targets of one prior for every sample: the baseline without collaboration."""
        x, seconds = self.features(spec)
        dim = min(self.study.dim, x.shape[1])
        made = fit_projection(x[self.shards(1, seed)[0][: 4 * dim]], dim, "pca", seed)
        owner = np.zeros(len(x), np.int16)
        return Made(self.all, apply(made, x), owner, [seconds], 0.0, 0.0, [1.0], [])

    def every_prior(
        self, seed: int, share: float = 1.0, *, priors: Sequence[str] | None = None
    ) -> Made:
        """Return the targets of every prior for each of a share of the samples, side by side.

        The ceiling of multi-teacher distillation: one head for each teacher, whose targets PHI-S
        (Ranzinger et al. 2024) puts on one scale. Its Hadamard rotation is left out: a head that
        ends linearly and a loss of the squared error or the cosine do not see a rotation.
        """
        rows = self.shared(round(share * len(self.all)), derive_seed(seed, "every prior"))
        found = [self.features(spec) for spec in priors or self.study.priors]
        each = []
        for x, _ in found:
            dim = min(self.study.dim, x.shape[1], len(rows) // 2)
            each.append(apply(fit_projection(x[rows[: 4 * dim]], dim, "pca", seed), x[rows]))
        scaled = [y / np.sqrt(np.square(y).mean()) for y in each]
        return Made(
            rows=rows,
            targets=np.concatenate(scaled, axis=1),
            participants=np.full(len(rows), -1, np.int16),
            optimize=[share * cost for _, cost in found],
            represent=0.0,
            align=0.0,
            r2=[1.0],
            on_s=[],
            parts=tuple(y.shape[1] for y in scaled),
        )

    def shards(self, count: int, seed: int, weights: Sequence[float] | None = None) -> list[Rows]:
        """Return the rows of each of ``count`` random shards, of equal size or by weight."""
        order = np.random.default_rng(derive_seed(seed, "shards")).permutation(self.all)
        if weights is None:
            return np.array_split(order, count)
        parts = np.cumsum(np.maximum(weights, 0))
        return np.split(order, np.round(parts[:-1] / parts[-1] * len(order)).astype(int))

    def student(
        self, made: Made | None, seed: int, *, every: int | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Train a student on ``made``, or without targets, and return its curve.

        Args:
            made: The targets, for an objective that needs them.
            seed: Of the training.
            every: Epochs between two probes; only at the end unless given.
            changes: Of the study's ``student``, such as ``objective="byol"``.
        """
        config = replace(self.study.student, **changes)
        dataset = None if made is None else self._dataset(made)
        runtime = RuntimeConfig(precision="bfloat16")  # on a GPU; a CPU computes in float32
        with tempfile.TemporaryDirectory() as folder:
            trained = train_student(
                dataset, self.study.data, config, runtime, Path(folder), seed,
                devices=1, watch=self.judge, watch_every=every or config.epochs,
            )  # fmt: skip
        end = trained.curve[-1]
        before = made.preparation if made else {"sum": 0.0, "max": 0.0}
        return {
            "accuracy": end.accuracy,
            "spread": end.spread,
            "training s": end.seconds,
            "preparation s, one device": before["sum"],
            "preparation s, one each": before["max"],
            "curve": [asdict(point) for point in trained.curve],
        }

    def random(self, seed: int, **changes: Any) -> float | None:
        """Return the probe of the student before any training."""
        config = replace(self.study.student, **changes)
        return self.judge(random_student(config, self.study.data, seed)).accuracy

    def probe(self, spec: str) -> float | None:
        """Return the accuracy of a linear probe of a prior's own features."""
        labels = [split_labels(self.study.data, split) for split in SPLITS]
        if labels[0] is None or labels[1] is None:
            return None
        x, z = (torch.from_numpy(self.features(spec, split)[0]) for split in SPLITS)
        y, w = (torch.from_numpy(one) for one in labels if one is not None)
        return fit_probe(x, y, z, w)

    def _maps(
        self,
        xs: list[Array],
        on_s: list[Array],
        shards: list[Rows],
        seed: int,
        reference: str,
        solver: str,
        projection: str,
    ) -> list[Alignment]:
        """Return every participant's map from features to targets."""
        dim, chosen = self.study.dim, -1
        if reference == "consensus":
            wanted = consensus_targets(on_s, dim)
        else:
            chosen = elected(on_s, reference, seed)
            rows = shards[chosen][: 4 * dim]
            made = fit_projection(xs[chosen][rows], dim, projection, derive_seed(seed, "project"))
            wanted = apply(made, on_s[chosen])
        return [
            made if k == chosen else fit_alignment(x, wanted, solver, derive_seed(seed, "align", k))
            for k, x in enumerate(on_s)
        ]

    def _cached(self, spec: str, split: str) -> tuple[Array, float]:
        prior, source = load_prior(spec, pick_device()), open_source(self.study.data, split)
        on = hardware() | {"device": pick_device().type, "threads": torch.get_num_threads()}
        key = f"{spec} {prior.sha256} {source.fingerprint} {on}"  # for their seconds are kept, too
        file = cache_dir() / "features" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
        if not file.exists():
            with exclusive(file.parent):
                if not file.exists():  # another experiment may have made it meanwhile
                    _represent(prior, source, file)
        with np.load(file) as known:
            return known["features"], float(known["seconds"])

    def _dataset(self, made: Made) -> OptimizedDataset:
        """Return the targets as the optimized dataset that they would make."""
        known = draft(
            config=Config(),
            source={"fingerprint": self.source.fingerprint},
            contributors=[],
            reference="consensus",
            plan_changes=[],
            audit={},
        )
        targets = made.targets.astype(np.float16)
        digest = hashlib.sha256(targets).hexdigest()
        known = replace(known, rows=len(targets), dim=targets.shape[1], digest=digest)
        ids = np.asarray(self.source.ids)[made.rows]
        folder = Path("in memory")
        return OptimizedDataset(folder, ids, targets, made.participants, known, made.parts)


def hardware() -> dict[str, str]:
    """Return what computes here: of several GPUs the first, which alone is used."""
    found = devices()
    return found | {"GPUs": found["GPUs"].partition(", ")[0]}


def _represent(prior: Prior, source: Source, file: Path) -> None:
    """Write a prior's features of all images, and the seconds they took, to ``file``."""
    size = 32 if prior.device.type == "cpu" else 256
    started = time.perf_counter()
    made = represent(prior, source, source.ids, batch_size=size,
                     precision="float32", on_error="raise").values  # fmt: skip
    seconds = time.perf_counter() - started
    with atomic(file) as whole:
        np.savez(whole, features=made, seconds=seconds)


def elected(on_s: Sequence[Array], how: str, seed: int) -> int:
    """Return the participant of the best, the worst or a random uniformity."""
    if how == "random":
        return int(np.random.default_rng(derive_seed(seed, "elect")).integers(len(on_s)))
    scores = [uniformity(x) for x in on_s]
    return int(np.argmax(scores) if how == "worst" else np.argmin(scores))


def apply(alignment: Alignment, x: Array) -> Array:
    """Return targets (N, n) of features (N, m)."""
    targets: Array = alignment.apply(torch.from_numpy(x)).numpy()
    return targets
