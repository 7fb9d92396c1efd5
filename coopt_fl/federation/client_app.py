"""The Flower ClientApp: a participant's answers to the platform's messages.

A participant keeps no state between messages: each has all that it needs.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from torch import Tensor, nn

from coopt_fl.config.schema import DataConfig, SplitConfig
from coopt_fl.core import remote
from coopt_fl.core.errors import ConfigError, CooptError, DataError, ParticipantError, PriorError
from coopt_fl.core.runtime import compute, keep_freed_memory, pick_device
from coopt_fl.data import Source, open_source
from coopt_fl.data.shards import Shards, open_shards
from coopt_fl.federation import protocol
from coopt_fl.federation.units import leave_unit
from coopt_fl.given import take_parts
from coopt_fl.optimized.block import block_digest, joined, rows_digest
from coopt_fl.optimized.licences import stated
from coopt_fl.optimized.provenance import versions
from coopt_fl.plugins import OUTSIDE, load_plugins
from coopt_fl.priors import Prior, load_prior
from coopt_fl.privacy import Guard, half, normalise, read_secret
from coopt_fl.targets import Alignment, fit_alignment, fit_projection, optimize, represent
from coopt_fl.targets.optimize import Encoded

app = ClientApp()

SPEED_BATCHES = 4


@dataclass(frozen=True)
class Participant:
    """One participant: a name and a prior, at work on the data that a task names.

    Attributes:
        name: its name in the roster.
        prior_name: the specification of its prior.
        task: what every request carries.
        root: the root of its own copy of the data.
        partitions: number of simulated participants, 0 in a deployment.
        device: where it computes.
        secret: the file with the secret that seeds its noise; simulations need none.
        license: the licence that it states for its prior's weights, or "".
    """

    name: str
    prior_name: str
    task: protocol.Task
    root: str | None
    partitions: int
    device: str
    secret: str | None
    license: str

    @property
    def prior(self) -> Prior:
        """The prior, loaded once per process; with privacy, its features are normalised."""
        prior = _prior(self.prior_name, self.device, self.task.precision)
        if self.task.clip is None:
            return prior
        return replace(prior, model=nn.Sequential(prior.model, Normalise()))

    @property
    def guard(self) -> Guard | None:
        """Clips and adds noise to each row before it is sent; None without privacy.

        Raises:
            ConfigError: it has no secret, or one that cannot be used.
        """
        if self.task.clip is None:
            return None
        secret = b""
        if self.secret is not None:
            secret = read_secret(Path(self.secret))
        elif not self.partitions and self.task.noise_multiplier:
            raise ConfigError(
                f"privacy needs a secret of {self.name}: start its SuperNode with --node-config "
                "'... privacy-secret=\"FILE\"', see docs/security.md"
            )
        return Guard(self.task.clip, self.task.noise_multiplier, secret)

    def source(self, blocks: Sequence[int] = (), *, shared: bool = False) -> Source:
        """Return the unlabeled data; of published shards, only the samples that the arguments name.

        Args:
            blocks: indexes of the blocks whose samples will be read.
            shared: whether samples of the shared set will be read.

        Raises:
            DataError: the data cannot be opened, or the shards are not the platform's.
        """
        task = self.task
        if task.shards is None:
            return _source(
                task.source,
                self.root,
                task.limit,
                task.on_error,
                task.decode,
                task.max_pixels,
                task.image_column,
                task.train,
            )
        source = _shards(task.shards, task.shards_sha256).source(blocks, shared)
        source.decoding, source.max_pixels = task.decode, task.max_pixels
        return source

    def describe(self, request: protocol.Describe) -> protocol.Description:
        """Describe this participant, its prior and the data that it sees."""
        prior, source = self.prior, self.source()
        return protocol.Description(
            name=self.name,
            prior=prior.id,
            width=prior.width,
            weights_sha256=prior.sha256,
            fingerprint=source.fingerprint,
            rows=len(source.ids),
            decoder=source.decoder,
            device=self.device,
            versions=versions(),
            rows_per_s=self._speed() if request.measure else 0.0,
            partitions=self.partitions,
            licenses=stated(self.prior.license, self.license),
        )

    def represent(self, request: protocol.Represent) -> protocol.Representation:
        """Return the features of the shared set."""
        return self._features(self.source(shared=True), request.ids)

    def project(self, request: protocol.Project) -> protocol.Aligned:
        """Fit the projection that makes targets of the reference's features."""
        source = self.source(request.blocks, shared=not request.blocks)
        features = self._on_device(self._features(source, request.ids).features)
        projection = fit_projection(features, request.dim, request.method, request.seed)
        return protocol.Aligned(**vars(projection))

    def align(self, request: protocol.Align) -> protocol.Aligned:
        """Fit the alignment of this prior's features to the reference's targets."""
        features, targets = self._on_device(request.features), self._on_device(request.targets)
        alignment = fit_alignment(features, targets, request.solver, request.seed)
        return protocol.Aligned(**vars(alignment))

    def optimize(self, request: protocol.Optimize) -> protocol.Delivery | protocol.Receipt:
        """Return the aligned targets of whole units, or write them where the request says.

        Raises:
            ParticipantError: files are asked for, but this is not the platform's host; or the
                request's sizes and ids do not match.
            PriorError: a feature or target is not finite, or widths do not match.
            DataError: an image cannot be read and ``data.on_error`` says to stop.
        """
        started, guard = time.perf_counter(), self.guard
        if request.folder and not self.partitions:
            raise ParticipantError(f"{self.name} is not on the platform's host: it leaves no files")
        if sum(request.sizes) != len(request.ids) or not request.sizes:
            raise ParticipantError(
                f"asked for units of {request.sizes} samples, but {len(request.ids)} ids"
            )
        alignment = Alignment(request.weight, request.bias, "")
        units = np.split(request.ids, np.cumsum(request.sizes)[:-1])
        source, made_by = self.source(request.blocks), (self.prior.sha256, alignment.sha256)
        release = (
            (lambda ids, targets: half(guard.release(targets, ids, "targets", *made_by)))
            if guard
            else None
        )
        stream = optimize(self.prior, source, units, alignment, release=release, **self._settings())
        if request.folder:
            return self._leave(request, stream, started)
        done, me = list(stream), np.int16(request.contributor)
        payload = protocol.Payload(
            blocks=request.blocks,
            rows=[len(block.ids) for block in done],
            ids=np.concatenate([block.ids for block in done]),
            targets=np.concatenate([block.values for block in done]),
            skipped=np.array([id for block in done for id in block.skipped], np.int64),
            digests=[
                block_digest(block.ids, block.values, np.full(len(block.ids), me)) for block in done
            ],
            seconds=time.perf_counter() - started,
        )
        if not request.upload:
            return payload
        data = protocol.pack(payload)
        remote.store(request.upload, data)
        return protocol.Receipt(len(data), hashlib.sha256(data).hexdigest())

    def _leave(
        self, request: protocol.Optimize, stream: Iterable[Encoded], started: float
    ) -> protocol.Delivery:
        """Write each unit as soon as it is done; return the metadata of all."""
        rows, skipped, digests = list[int](), list[int](), list[str]()
        for index, block in zip(request.blocks, stream, strict=True):
            me = np.full(len(block.ids), request.contributor, np.int16)
            made = joined(block.ids, block.values, me)
            leave_unit(Path(request.folder), index, made)
            rows.append(len(made))
            skipped += block.skipped
            digests.append(rows_digest(made))
        return protocol.Delivery(
            blocks=request.blocks,
            rows=rows,
            skipped=np.array(skipped, np.int64),
            digests=digests,
            seconds=time.perf_counter() - started,
        )

    def _features(self, source: Source, ids: protocol.IntArray) -> protocol.Representation:
        features = represent(self.prior, source, ids, **self._settings())
        values, guard = features.values, self.guard
        if guard is not None:
            values = guard.release(values, features.ids, "features", self.prior.sha256)
        skipped = np.array(features.skipped, np.int64)
        return protocol.Representation(features.ids, values, skipped)

    def _on_device(self, values: NDArray[np.float32]) -> Tensor:
        """Return the values on the participant's device, where maps are fitted."""
        return torch.tensor(values, device=self.device)

    def _settings(self) -> dict[str, Any]:
        """Return how the prior is run."""
        return {key: getattr(self.task, key) for key in ("batch_size", "precision", "on_error")}

    def _speed(self) -> float:
        """Return samples/s of the prior alone, after one batch to warm up."""
        side = self.prior.preprocess.size
        images = torch.zeros((self.task.batch_size, 3, side, side), dtype=torch.uint8)
        self.prior.features(images, self.task.precision)
        started = time.perf_counter()
        for _ in range(SPEED_BATCHES):
            self.prior.features(images, self.task.precision).sum().item()
        return SPEED_BATCHES * len(images) / (time.perf_counter() - started)


class Normalise(nn.Module):
    """Gives each row of features (B, m) the norm sqrt(m)."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the features normalised."""
        return normalise(features)


@lru_cache(maxsize=4)
def _prior(spec: str, device: str, precision: str) -> Prior:
    return load_prior(spec, device, precision)


@lru_cache(maxsize=2)
def _source(
    source: str,
    root: str | None,
    limit: int | None,
    on_error: str,
    decode: str,
    max_pixels: int,
    image_column: str | None,
    train: str | None,
) -> Source:
    data = DataConfig(source, root, limit, on_error, None, decode, max_pixels)
    return open_source(replace(data, image_column=image_column, split=SplitConfig(train=train)))


@lru_cache(maxsize=2)
def _shards(url: str, manifest_sha256: str) -> Shards:
    shards = open_shards(url)
    if shards.manifest_sha256 != manifest_sha256:
        raise DataError(
            f"the shards at {url} are not those that the platform opened; wait until they are "
            "published, then run again"
        )
    return shards


def _answer(
    kind: type[Any], act: Callable[[Participant, Any], Any], message: Message, context: Context
) -> Message:
    """Decode the request, act with its task's threads and determinism, encode the answer.

    A :class:`CooptError` is sent back as an error record.
    """
    try:
        request = protocol.decode(kind, message.content)
        participant, task = identify(context, request.task), request.task
        keep_freed_memory()
        try:
            with compute(task.threads, task.deterministic):
                content = protocol.encode(act(participant, request))
        except torch.OutOfMemoryError as error:
            raise PriorError(
                f"{participant.prior_name} with batches of {task.batch_size} does not fit on the "
                "GPU: lower optimize.batch_size or simulation.actors"
            ) from error
    except CooptError as error:
        content = protocol.encode_error(error)
    return Message(content, reply_to=message)


def identify(context: Context, task: protocol.Task) -> Participant:
    """Return the participant of this node, by its ``--node-config`` or simulated partition.

    A deployed node imports only what its own node-config names, never what a message names; a
    simulated one belongs to whoever started the run, and imports the run's plug-ins.

    Raises:
        ParticipantError: the node is not in the roster, or is asked to import something.
        ConfigError: a plug-in cannot be imported.
    """
    node, priors = context.node_config, dict(task.roster)
    if "name" in node:
        name, partitions = str(node["name"]), 0
        prior = str(node.get("prior") or priors.get(name, ""))
        if not prior:
            raise ParticipantError(f"{name!r} is not in the roster and names no prior of its own")
        load_plugins([one.strip() for one in str(node.get("plugins", "")).split(",") if one])
        for key, used in {"prior": prior, "data-source": task.source}.items():
            if used.startswith((OUTSIDE, "module:")) and node.get(key) != used:
                raise ParticipantError(
                    f"{name} imports {used} only if its own node-config names it: if that is "
                    f"right, start its SuperNode with --node-config '... {key}=\"{used}\"'"
                )
    else:
        if "partition-id" not in node:
            raise ParticipantError("start its SuperNode with --node-config 'name=\"...\"'")
        partition, partitions = int(node["partition-id"]), int(node["num-partitions"])
        if partition >= len(task.roster):
            raise ParticipantError(
                f"node {partition} is one too many: the roster has {len(priors)} participants"
            )
        name, prior = task.roster[partition]
        take_parts(task.plugins)
    return Participant(
        name,
        prior,
        task,
        root=str(node["data-root"]) if node.get("data-root") else task.root,
        partitions=partitions,
        device=str(node["device"]) if node.get("device") else str(pick_device()),
        secret=str(node["privacy-secret"]) if "privacy-secret" in node else None,
        license=str(node.get("license", "")),
    )


app.query("describe")(partial(_answer, protocol.Describe, Participant.describe))
app.query("represent")(partial(_answer, protocol.Represent, Participant.represent))
app.train("project")(partial(_answer, protocol.Project, Participant.project))
app.train("align")(partial(_answer, protocol.Align, Participant.align))
app.train("optimize")(partial(_answer, protocol.Optimize, Participant.optimize))
