"""The platform's decisions: made once, stored before they are acted upon, read back on resume."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from coopt_fl.config.schema import Config
from coopt_fl.core.errors import DataError, ParticipantError
from coopt_fl.core.progress import Progress
from coopt_fl.core.remote import shown
from coopt_fl.core.runtime import compute
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import Source, make_blocks, make_units, shared_set
from coopt_fl.data.shards import Layout, open_shards
from coopt_fl.federation.plan import Plan
from coopt_fl.federation.records import Features, Ids, Records
from coopt_fl.optimized.provenance import Contributor, Provenance, draft
from coopt_fl.optimized.write import publish
from coopt_fl.policies.assignment import assign_blocks
from coopt_fl.policies.reference import CONSENSUS, elect
from coopt_fl.privacy import count_releases
from coopt_fl.privacy import summary as privacy_summary
from coopt_fl.targets import consensus_targets, heldout_r2, uniformity

FASTEST = 20.0
"""What a participant's word about its speed is worth at most, over the median of all."""


def make_plan(config: Config, source: Source, records: Records, present: list[str]) -> Plan:
    """Return the run's plan, made now from those ``present`` if there is none yet."""
    if records.planned:
        return records.plan
    blocks, units, shared = _cut(config, source)
    shares = weights(config, records, present)
    owners = assign_blocks(len(blocks), list(shares.values()))
    records.make(Plan(present, blocks, units, owners, shared))
    return records.plan


def shards_sum(config: Config, source: Source) -> str:
    """Return the sha256 of the manifest of ``data.shards``; "" where there are none.

    Raises:
        DataError: they cannot be opened, or are of other data, blocks or seed.
    """
    url = config.data.shards
    if url is None:
        return ""
    shards, (_, units, shared) = open_shards(url), _cut(config, source)
    layout = Layout(units, shared, config.optimize.block_rows, config.audit.fraction)
    same_ids = shards.manifest.ids_sha256 == layout.digest()
    if shards.fingerprint != source.fingerprint or not same_ids:
        what = "blocks, shared set or seed" if not same_ids else "data"
        raise DataError(
            f"the shards at {shown(url)} are of other {what} than this run: run `coopt "
            "publish-shards` with the same configuration and another --out"
        )
    return shards.manifest_sha256


def _cut(config: Config, source: Source) -> tuple[list[Ids], list[Ids], Ids]:
    """Return the blocks, the units and the shared set of a run."""
    blocks = make_blocks(source.ids, config.optimize.block_rows, config.seed)
    units = make_units(blocks, config.audit.fraction, config.seed)
    return blocks, units, shared_set(source.ids, config.shared.size, config.seed)


def weights(config: Config, records: Records, names: list[str]) -> dict[str, float]:
    """Return the share of the work that each of ``names`` should have, relative to the others'."""
    if config.assignment.by == "speed":
        speeds = {name: float((records.description(name) or {})["rows_per_s"]) for name in names}
        most = FASTEST * float(np.median(list(speeds.values())))
        return {name: min(speed, most) for name, speed in speeds.items()}
    given = {participant.name: participant.weight for participant in config.participants}
    return {name: given[name] for name in names}


def projection_part(plan: Plan, name: str, dim: int) -> tuple[list[int], Ids]:
    """Return the samples of its shard on which ``name`` fits its projection, and their blocks.

    A PCA needs 2 ``dim`` of them; twice as many leave room for images that cannot be read. They
    are whole units, as it will be asked for targets of: nothing tells which rows are for the audit.
    """
    blocks, rows = list[int](), 0
    for index in plan.blocks_of(name):
        if rows >= 4 * dim:
            break
        blocks.append(index)
        rows += len(plan.units[index])
    return blocks, projection_ids(plan, blocks, dim)


def projection_ids(plan: Plan, blocks: list[int], dim: int) -> Ids:
    """Return the samples of ``blocks`` for a projection; of the shared set where there are none."""
    if not blocks:
        return plan.shared
    return np.concatenate([plan.units[index] for index in blocks])[: 4 * dim]


def settle_reference(
    config: Config, records: Records, features: dict[str, Features], progress: Progress
) -> str:
    """Return the run's reference, elected now from ``features`` if it was not yet.

    Who was elected but is lost before its projection came is replaced.
    """
    stored = records.state.record("reference")
    if stored is not None:
        reference = str(stored["reference"])
        if reference in (CONSENSUS, *features) or records.shared_targets() is not None:
            return reference
    wanted, targets = config.reference, config.targets
    if wanted == CONSENSUS and (targets.projection != "pca" or targets.solver == "none"):
        wanted = "best"
        progress.warn(
            f"targets.projection={targets.projection} with targets.solver={targets.solver} leaves "
            "nothing to a consensus: the best prior is the reference"
        )
    election = elect(features, wanted, targets.dim, config.seed)
    for warning in election.warnings:
        progress.warn(warning)
    records.state.save_record("reference", asdict(election))
    return election.reference


def settle_targets(
    config: Config,
    records: Records,
    ids: Ids,
    features: dict[str, Features],
    reference: str,
) -> int:
    """Store S_Y* (S, n), what everyone's targets of the shared set should be; return S."""
    settled = records.shared_targets()
    if settled is not None:
        return len(settled[0])
    if reference == CONSENSUS:
        accepted = records.state.record("reference")["accepted"]
        votes = [features[name] for name in accepted if name in features]
        targets = consensus_targets(votes, config.targets.dim)
    else:
        projection = records.alignment(reference)
        targets = projection.apply(torch.from_numpy(features[reference])).numpy()
    records.save_shared_targets(ids, np.asarray(targets, np.float32))
    return len(ids)


def fuse(config: Config, source: Source, records: Records, progress: Progress) -> Provenance:
    """Publish the optimized dataset from the stored blocks."""
    plan = records.plan
    provenance = draft(
        config=config,
        source={"name": source.name, "fingerprint": source.fingerprint, "rows": len(source.ids)},
        contributors=[_contributor(config, records, name) for name in plan.contributors],
        reference=records.reference,
        plan_changes=[asdict(change) for change in plan.changes],
        audit=records.state.record("audit") or {},
        privacy=_privacy(config, source, records),
    )
    total = len(source.ids)
    sizes, state = [len(ids) for ids in plan.blocks], records.state
    return publish(
        state.dataset,
        provenance,
        sizes,
        state.block,
        lambda rows: progress.show("fuse", rows, total),
    )


def _privacy(config: Config, source: Source, records: Records) -> dict[str, Any] | None:
    """Return what was released of each image, and what that may tell; None without privacy."""
    if config.privacy.clip is None:
        return None
    plan = records.plan
    uploads = list(plan.units)
    for change in plan.changes:
        uploads += [plan.units[index] for index in change.blocks]
    asked = records.represented()
    uploads += [
        plan.shared  # whoever answered was asked, even before that was recorded
        for one in plan.contributors
        if one in asked or records.has_features(one)
    ]
    projections, reference = records.projections(), records.reference
    if not projections and reference in plan.contributors:  # asked before that was recorded
        projections = [projection_part(plan, reference, config.targets.dim)[0]]
    for blocks in projections:
        uploads.append(projection_ids(plan, blocks, config.targets.dim))
    return privacy_summary(config.privacy, count_releases(source.ids, uploads))


def _contributor(config: Config, records: Records, name: str) -> Contributor:
    """Return what is known of ``name``, which may have been lost before it was aligned."""
    election = records.state.record("reference")
    described, aligned = records.description(name), records.has_alignment(name)
    if described is None:
        raise ParticipantError(f"nothing is known of {name}; run the same command again")
    return Contributor(
        name=name,
        prior=described["prior"],
        weights_sha256=described["weights_sha256"],
        alignment_sha256=records.alignment(name).sha256 if aligned else "",
        uniformity=election["uniformity"].get(name) or _uniformity(records, name),
        r2_heldout=_r2(config, records, name) if aligned else None,
    )


def _r2(config: Config, records: Records, name: str) -> float:
    """Return how well ``name`` is aligned: nobody grades itself. The reference is what it is."""
    if name == records.reference:
        return 1.0
    seed = derive_seed(config.seed, "align", name)
    with compute(config.runtime.threads):
        return heldout_r2(*records.aligning(name), config.targets.solver, seed)


def _uniformity(records: Records, name: str) -> float | None:
    """Return the uniformity of one who joined after the election."""
    if not records.has_features(name):
        return None
    return uniformity(records.features([name])[1][name])
