"""What every experiment does: targets as a collaboration would make them, and students on them.

Features are computed once for each prior and kept in the cache with the seconds that they took
alone on the device, so that a table of targets costs only its linear algebra.
"""

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl.data import open_source, shared_set
from coopt_fl.data.cache import cache_dir
from coopt_fl.optimized.provenance import draft
from coopt_fl.optimized.reader import OptimizedDataset
from coopt_fl.priors import load_prior
from coopt_fl.runtime import pick_device
from coopt_fl.schema import Config, RuntimeConfig
from coopt_fl.seeding import derive_seed
from coopt_fl.students import Judge, train_student
from coopt_fl.students.probe import random_student
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


@dataclass(frozen=True)
class Made:
    """Targets that some way of making them gave.

    Attributes:
        targets: float32 (N, n), of every row of the training split.
        participants: int16 (N,): who made each.
        optimize: Seconds of each participant alone on the device.
        align: Seconds of uniformity, reference and alignment.
        r2: Held-out R2 of each participant.
    """

    targets: Array
    participants: NDArray[np.int16]
    optimize: list[float]
    align: float
    r2: list[float]

    @property
    def preparation(self) -> dict[str, float]:
        """Seconds before training: as if on one device, and with one for each participant."""
        return {
            "sum": sum(self.optimize) + self.align,
            "max": max(self.optimize, default=0.0) + self.align,
            "align": self.align,
        }


class Lab:
    """A study's data, the features of its priors, and students trained on what is made of them."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.source = open_source(study.data)
        self.rows = len(self.source.ids)
        self.judge = Judge(study.data)
        self._features: dict[str, tuple[Array, float]] = {}

    def features(self, spec: str) -> tuple[Array, float]:
        """Return a prior's features (N, m) of all training images, and the seconds they took."""
        if spec not in self._features:
            self._features[spec] = self._cached(spec)
        return self._features[spec]

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
        """
        found = [self.features(spec) for spec in priors or self.study.priors]
        xs = [values for values, _ in found]
        shards = self.shards(len(xs), seed)
        started = time.perf_counter()
        on_s = [x[shared_set(np.arange(self.rows), shared or self.study.shared, seed)] for x in xs]
        maps = self._maps(xs, on_s, shards, seed, reference, solver, projection)
        align = time.perf_counter() - started
        shares = [seconds * replicas / len(xs) for _, seconds in found]
        targets = np.zeros((self.rows, self.study.dim), np.float32)
        participants = np.zeros(self.rows, np.int16)
        for k, rows in enumerate(shards):
            participants[rows] = k if replicas == 1 else -1
            for r in range(replicas):
                other = (k + r) % len(xs)
                targets[rows] += apply(maps[other], xs[other][rows]) / replicas
        return Made(targets, participants, shares, align, [one.r2_heldout for one in maps])

    def centralize(self, spec: str, seed: int, projection: str = "pca") -> Made:
        """Return the targets of one prior for every sample: the baseline without collaboration."""
        x, seconds = self.features(spec)
        rows = self.shards(1, seed)[0][: 4 * self.study.dim]
        made = fit_projection(x[rows], self.study.dim, projection, seed)
        return Made(apply(made, x), np.zeros(self.rows, np.int16), [seconds], 0.0, [1.0])

    def shards(self, count: int, seed: int) -> list[NDArray[np.int64]]:
        """Return the rows of each of ``count`` random shards of equal size."""
        order = np.random.default_rng(derive_seed(seed, "shards")).permutation(self.rows)
        return np.array_split(order, count)

    def student(self, made: Made | None, seed: int, **changes: Any) -> dict[str, Any]:
        """Train a student on ``made``, or without targets, and return its curve.

        Args:
            made: The targets, for an objective that needs them.
            seed: Of the training.
            changes: Of the study's ``student``, such as ``objective="byol"``.
        """
        config = replace(self.study.student, **changes)
        dataset = None if made is None else self._dataset(made)
        runtime = RuntimeConfig(precision="bfloat16")  # on a GPU; a CPU computes in float32
        with tempfile.TemporaryDirectory() as folder:
            trained = train_student(
                dataset, self.study.data, config, runtime, Path(folder), seed,
                devices=1, watch=self.judge,
            )  # fmt: skip
        end = trained.curve[-1]
        return {
            "accuracy": end.accuracy,
            "spread": end.spread,
            "seconds": end.seconds,
            "preparation": made.preparation if made else None,
            "curve": [asdict(point) for point in trained.curve],
        }

    def random(self, seed: int, **changes: Any) -> float | None:
        """Return the probe of the student before any training."""
        config = replace(self.study.student, **changes)
        return self.judge(random_student(config, self.study.data, seed)).accuracy

    @cached_property
    def uniformities(self) -> dict[str, float]:
        """The uniformity of each of the study's priors, on the shared set of seed 0."""
        rows = shared_set(np.arange(self.rows), self.study.shared, 0)
        return {spec: uniformity(self.features(spec)[0][rows]) for spec in self.study.priors}

    def _maps(
        self,
        xs: list[Array],
        on_s: list[Array],
        shards: list[NDArray[np.int64]],
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

    def _cached(self, spec: str) -> tuple[Array, float]:
        prior = load_prior(spec, pick_device())
        key = f"{spec} {prior.sha256} {self.source.fingerprint} {pick_device().type}"
        file = cache_dir() / "features" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
        if not file.exists():
            size = 32 if pick_device().type == "cpu" else 256
            started = time.perf_counter()
            made = represent(prior, self.source, self.source.ids, batch_size=size,
                             precision="float32", on_error="raise").values  # fmt: skip
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, features=made, seconds=time.perf_counter() - started)
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
        known = replace(known, rows=self.rows, dim=targets.shape[1], digest=digest)
        ids = np.asarray(self.source.ids)
        return OptimizedDataset(Path("in memory"), ids, targets, made.participants, known)


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
