"""What a participant does. It keeps nothing between messages: all it needs comes with each."""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch

from coopt_fl import protocol
from coopt_fl.data import Source, open_source
from coopt_fl.errors import ParticipantError, PriorError
from coopt_fl.optimized.block import block_digest
from coopt_fl.optimized.provenance import versions
from coopt_fl.priors import Prior, load_prior
from coopt_fl.runtime import compute, pick_device
from coopt_fl.schema import DataConfig
from coopt_fl.targets import Alignment, fit_alignment, fit_projection, optimize, represent

R = TypeVar("R")

SPEED_BATCHES = 4


class Participant:
    """One participant: a name and a prior, at work on the data that a task names.

    Args:
        name: its name in the roster.
        prior: the specification of its prior.
        task: what every request carries.
        root: where its own copy of the data lies, if elsewhere than the task says.
        partitions: number of simulated participants, 0 in a deployment.
    """

    def __init__(
        self, name: str, prior: str, task: protocol.Task, root: str | None, partitions: int
    ) -> None:
        self.name, self.prior_name, self.task = name, prior, task
        self.root = root or task.root
        self.partitions = partitions

    @property
    def prior(self) -> Prior:
        """The prior, loaded once per process."""
        return _prior(self.prior_name, str(pick_device()))

    @property
    def source(self) -> Source:
        """The unlabeled data, opened once per process."""
        return _source(self.task.source, self.root, self.task.limit, self.task.on_error)

    def describe(self, request: protocol.Describe) -> protocol.Description:
        """Say who this is, what it owns and what data it sees."""
        prior, source = self.prior, self.source
        return protocol.Description(
            name=self.name,
            prior=prior.id,
            width=prior.width,
            weights_sha256=prior.sha256,
            fingerprint=source.fingerprint,
            rows=len(source.ids),
            device=str(pick_device()),
            versions=versions(),
            rows_per_s=self._speed() if request.measure else 0.0,
            partitions=self.partitions,
        )

    def represent(self, request: protocol.Represent) -> protocol.Representation:
        """Return the features of the shared set."""
        return protocol.Representation(*self._features(request.ids))

    def project(self, request: protocol.Project) -> protocol.Aligned:
        """Fit the projection that makes targets of the reference's features."""
        _, features, _ = self._features(request.ids)
        projection = fit_projection(features, request.dim, request.method, request.seed)
        return _aligned(projection)

    def align(self, request: protocol.Align) -> protocol.Aligned:
        """Fit the alignment of this prior's features to the reference's targets."""
        alignment = fit_alignment(request.features, request.targets, request.solver, request.seed)
        return _aligned(alignment)

    def optimize(self, request: protocol.Optimize) -> protocol.Payload:
        """Return the aligned targets of whole blocks.

        Raises:
            PriorError: a feature or target is not finite, or widths do not match.
            DataError: an image cannot be read and ``data.on_error`` says to stop.
        """
        started = time.perf_counter()
        if sum(request.sizes) != len(request.ids) or not request.sizes:
            raise ParticipantError(f"asked for blocks {request.sizes} but {len(request.ids)} ids")
        alignment = Alignment(request.weight, request.bias, 0.0, "")
        done = list(
            optimize(
                self.prior,
                self.source,
                np.split(request.ids, np.cumsum(request.sizes)[:-1]),
                alignment,
                batch_size=self.task.batch_size,
                precision=self.task.precision,
                on_error=self.task.on_error,
            )
        )
        return protocol.Payload(
            blocks=request.blocks,
            rows=[len(block.ids) for block in done],
            ids=np.concatenate([block.ids for block in done]),
            targets=np.concatenate([block.targets for block in done]),
            skipped=np.array([id for block in done for id in block.skipped], np.int64),
            digests=[
                block_digest(
                    block.ids,
                    block.targets,
                    np.full(len(block.ids), request.contributor, np.int16),
                )
                for block in done
            ],
            seconds=time.perf_counter() - started,
        )

    def run(self, work: Callable[[], R]) -> R:
        """Do ``work`` with the task's threads and determinism.

        Raises:
            PriorError: the GPU's memory does not suffice.
        """
        try:
            with compute(self.task.threads, self.task.deterministic):
                return work()
        except torch.OutOfMemoryError:
            raise PriorError(
                f"{self.prior_name} with batches of {self.task.batch_size} does not fit on the "
                "GPU: lower optimize.batch_size or simulation.actors"
            ) from None

    def _features(
        self, ids: protocol.IntArray
    ) -> tuple[protocol.IntArray, protocol.FloatArray, protocol.IntArray]:
        features = represent(
            self.prior,
            self.source,
            ids,
            batch_size=self.task.batch_size,
            precision=self.task.precision,
            on_error=self.task.on_error,
        )
        return features.ids, features.values, np.array(features.skipped, np.int64)

    def _speed(self) -> float:
        """Return samples/s of the prior alone, after one batch to warm up."""
        side = self.prior.preprocess.size
        images = torch.zeros((self.task.batch_size, 3, side, side), dtype=torch.uint8)
        self.prior.features(images, self.task.precision)
        started = time.perf_counter()
        for _ in range(SPEED_BATCHES):
            self.prior.features(images, self.task.precision).sum().item()
        return SPEED_BATCHES * len(images) / (time.perf_counter() - started)


def _aligned(alignment: Alignment) -> protocol.Aligned:
    return protocol.Aligned(
        alignment.weight,
        alignment.bias,
        alignment.r2_heldout,
        alignment.solver,
    )


@lru_cache(maxsize=4)
def _prior(spec: str, device: str) -> Prior:
    return load_prior(spec, device)


@lru_cache(maxsize=2)
def _source(source: str, root: str | None, limit: int | None, on_error: str) -> Source:
    return open_source(DataConfig(source=source, root=root, limit=limit, on_error=on_error))
