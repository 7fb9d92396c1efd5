"""The baseline: one prior labels everything, in this process, without Flower."""

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import AssignmentConfig, Config, ParticipantConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.progress import Progress
from coopt_fl.core.runtime import compute, keep_freed_memory, pick_device
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import Source
from coopt_fl.federation.planning import fuse, make_plan, projection_part, settle_reference
from coopt_fl.federation.records import Records
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.block import Block
from coopt_fl.priors import Prior, load_prior
from coopt_fl.targets import Alignment, fit_projection, optimize, represent
from coopt_fl.targets.optimize import Features

Ids = NDArray[np.int64]


def single(config: Config, prior: str) -> Config:
    """Return ``config`` with one participant: the one named ``prior``, or one with that prior.

    Raises:
        ConfigError: it is neither a participant's name nor the specification of a prior, or
            privacy is asked for, which guards uploads, and there are none.
    """
    if config.privacy.clip is not None:
        raise ConfigError(
            "privacy.clip and privacy.noise_multiplier guard what participants upload, and a "
            "centralized run uploads nothing: leave them out (privacy.clip=null)"
        )
    known = {participant.name: participant for participant in config.participants}
    if prior in known:
        participant = replace(known[prior], weight=1.0)
    elif ":" in prior:
        participant = ParticipantConfig(name="central", prior=prior)
    else:
        raise ConfigError(
            f"--prior {prior!r} is neither a participant ({', '.join(known)}) nor SCHEME:NAME"
        )
    return replace(
        config,
        participants=[participant],
        assignment=AssignmentConfig(),
        min_participants=None,
        reference="best",
    )


def optimize_centrally(config: Config, source: Source, state: RunState, progress: Progress) -> None:
    """Turn ``source`` into an optimized dataset with the only participant's prior; resumes."""
    records, runtime = Records(state), config.runtime
    keep_freed_memory()
    with compute(runtime.threads, runtime.deterministic):
        with progress.phase("describe"):
            prior = load_prior(config.participants[0].prior, pick_device())
            name = config.participants[0].name
            known = {
                "prior": prior.id,
                "weights_sha256": prior.sha256,
                "width": prior.width,
                "device": str(prior.device),
            }
            records.remember(name, known, first=True)
            plan = make_plan(config, source, records, [name])
        with progress.phase("represent"):
            if not records.has_features(name):
                seen = _features(config, prior, source, plan.shared)
                records.save_features(name, seen.ids, seen.values)
            settle_reference(config, records, records.features([name])[1], progress)
        with progress.phase("align"):
            if not records.has_alignment(name):
                _, ids = projection_part(plan, name, config.targets.dim)
                records.save_alignment(name, _project(config, prior, source, ids))
            alignment = records.alignment(name)
        with progress.phase("optimize"):
            _optimize(config, prior, source, state, plan.blocks, alignment, progress)
        with progress.phase("fuse"):
            fuse(config, source, records, progress)


def _features(config: Config, prior: Prior, source: Source, ids: Ids) -> Features:
    return represent(
        prior,
        source,
        ids,
        batch_size=config.optimize.batch_size,
        precision=config.runtime.precision,
        on_error=config.data.on_error,
    )


def _project(config: Config, prior: Prior, source: Source, ids: Ids) -> Alignment:
    """Fit the projection as the reference of a collaboration would."""
    dim, method = config.targets.dim, config.targets.projection
    features = _features(config, prior, source, ids)
    return fit_projection(features.values, dim, method, derive_seed(config.seed, "project"))


def _optimize(
    config: Config,
    prior: Prior,
    source: Source,
    state: RunState,
    blocks: list[Ids],
    alignment: Alignment,
    progress: Progress,
) -> None:
    """Optimize and store the blocks that are not stored, one after another."""
    missing = state.missing_blocks(len(blocks))
    done, total = sum(map(len, blocks)) - sum(len(blocks[i]) for i in missing), len(source.ids)
    stream = optimize(
        prior,
        source,
        [blocks[index] for index in missing],
        alignment,
        batch_size=config.optimize.batch_size,
        precision=config.runtime.precision,
        on_error=config.data.on_error,
    )
    started = time.perf_counter()
    for index, made in zip(missing, stream, strict=True):
        took, started = time.perf_counter() - started, time.perf_counter()
        skipped = np.array(made.skipped, np.int64)
        participants = np.zeros(len(made.ids), np.int16)
        state.save_block(index, Block(made.ids, made.targets, participants, skipped, took))
        done += len(blocks[index])
        progress.show("optimize", done, total, "samples")
