"""The baseline: one prior labels everything, in this process, without Flower."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coopt_fl.config.schema import AssignmentConfig, Config, ParticipantConfig, TargetsConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.progress import Progress
from coopt_fl.core.runtime import compute, keep_freed_memory, pick_device
from coopt_fl.data import Source
from coopt_fl.federation.decisions import Decisions
from coopt_fl.federation.holding import open_run
from coopt_fl.federation.records import Records
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.block import Block
from coopt_fl.optimized.licences import stated
from coopt_fl.priors import load_prior
from coopt_fl.targets import optimize, represent


def single(config: Config, prior: str) -> Config:
    """Return ``config`` with one participant: the one named ``prior``, or one with that prior.

    Raises:
        ConfigError: it is neither a participant's name nor the specification of a prior; or
            privacy is configured, which protects uploads, and a centralized run has none.
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
        targets=replace(config.targets, consensus=TargetsConfig().consensus),
        reference="best",
    )


def optimize_centrally(config: Config, out: Path, progress: Progress) -> None:
    """Make or finish an optimized dataset of all data with the only participant's prior."""
    with open_run(config, out, progress) as (source, state):
        if not state.published:
            keep_freed_memory()
            with compute(config.runtime.threads, config.runtime.deterministic):
                _optimize(config, source, state, progress)


def _optimize(config: Config, source: Source, state: RunState, progress: Progress) -> None:
    """Run the phases of a collaboration in this process, with nobody to align."""
    records = Records(state)
    decisions = Decisions(config, source, records, progress)
    recipe, name = decisions.recipe, config.participants[0].name
    how: dict[str, Any] = {
        "batch_size": config.optimize.batch_size,
        "precision": config.runtime.precision,
        "on_error": config.data.on_error,
    }
    with progress.phase("describe"):
        prior = load_prior(config.participants[0].prior, pick_device(), config.runtime.precision)
        description = {"prior": prior.id, "width": prior.width, "device": str(prior.device)}
        description |= {"licenses": stated(prior.license, "")}
        records.remember(name, description | {"weights_sha256": prior.sha256}, first=True)
        plan = decisions.plan([name])
    with progress.phase("represent"):
        if not records.has("features", name):
            seen = represent(prior, source, plan.shared, **how)
            records.save("features", name, ids=seen.ids, features=seen.values)
        decisions.reference()
    with progress.phase("align"):
        if not records.has("alignments", name):
            blocks = plan.projected(name, recipe.rows_to_project)
            ids = plan.projected_ids(blocks, recipe.rows_to_project)
            shard = represent(prior, source, ids, **how)
            features = torch.tensor(shard.values, device=prior.device)
            records.save("alignments", name, **vars(recipe.project(features)))
        alignment = records.alignment(name)
    with progress.phase("optimize"):
        missing = state.missing_blocks(len(plan.blocks))
        done, total = len(source.ids) - sum(len(plan.blocks[k]) for k in missing), len(source.ids)
        stream = optimize(prior, source, [plan.blocks[k] for k in missing], alignment, **how)
        progress.show("optimize", done, total, "sample")
        started = time.perf_counter()
        for index, made in zip(missing, stream, strict=True):
            took, started = time.perf_counter() - started, time.perf_counter()
            contributor = np.zeros(len(made.ids), np.int16)  # index 0: the only one
            skipped = np.array(made.skipped, np.int64)
            state.save_block(index, Block(made.ids, made.values, contributor, skipped, took))
            done += len(plan.blocks[index])
            progress.show("optimize", done, total, "sample")
    with progress.phase("fuse"):
        decisions.publish()
