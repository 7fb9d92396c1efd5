"""The platform's decisions: made once, stored before they are acted upon, read back on resume."""

from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl.data import Source, make_blocks, shared_set
from coopt_fl.errors import ParticipantError
from coopt_fl.optimized.plan import Plan, read_plan, save_plan
from coopt_fl.optimized.provenance import Contributor, draft
from coopt_fl.optimized.publish import publish
from coopt_fl.progress import Silent
from coopt_fl.schema import Config
from coopt_fl.targets import consensus_targets
from strategies.assignment import assign_blocks
from strategies.records import Features, Records
from strategies.reference import CONSENSUS, elect


def make_plan(config: Config, source: Source, records: Records, present: list[str]) -> Plan:
    """Return the run's plan, made now from those ``present`` if there is none yet."""
    stored = read_plan(records.state)
    if stored is not None:
        return stored
    weights = {participant.name: participant.weight for participant in config.participants}
    if config.assignment.by == "speed":
        weights = {name: (records.description(name) or {})["rows_per_s"] for name in present}
    blocks = make_blocks(source.ids, config.optimize.block_rows, config.seed)
    plan = Plan(
        contributors=present,
        blocks=blocks,
        owners=assign_blocks(len(blocks), [weights[name] for name in present]),
        shared=shared_set(source.ids, config.shared.size, config.seed),
    )
    save_plan(records.state, plan)
    return plan


def projection_ids(plan: Plan, name: str, dim: int) -> NDArray[np.int64]:
    """Return the samples of its shard on which participant ``name`` fits its projection.

    A PCA needs 2 ``dim`` of them; twice as many leave room for images that cannot be read.
    """
    shard = plan.shard(name)[: 4 * dim]
    return shard if len(shard) else plan.shared


def settle_reference(
    config: Config, records: Records, features: dict[str, Features], progress: Silent
) -> str:
    """Return the run's reference, elected now if it was not yet."""
    stored = records.state.record("reference")
    if stored is not None:
        return str(stored["reference"])
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


def shared_targets(
    config: Config, records: Records, features: dict[str, Features], reference: str
) -> Features:
    """Return S_Y* (S, n): what everyone's targets of the shared set should be."""
    stored = records.state.arrays("shared_targets")
    if stored is not None:
        return stored["targets"]
    if reference == CONSENSUS:
        accepted = records.state.record("reference")["accepted"]
        targets = consensus_targets([features[name] for name in accepted], config.targets.dim)
    else:
        alignment = records.alignment(reference)
        if alignment is None:
            raise ParticipantError(f"{reference} has not delivered its projection")
        targets = alignment.apply(torch.from_numpy(features[reference])).numpy()
    records.state.save_arrays("shared_targets", targets=np.asarray(targets, np.float32))
    return np.asarray(targets, np.float32)


def fuse(config: Config, source: Source, records: Records, plan: Plan, progress: Silent) -> None:
    """Publish the optimized dataset from the stored blocks."""
    election = records.state.record("reference")
    provenance = draft(
        config=config,
        source={"name": source.name, "fingerprint": source.fingerprint, "rows": len(source.ids)},
        contributors=[_contributor(records, name, election) for name in plan.contributors],
        reference=election["reference"],
        plan_changes=[],
    )
    total = len(source.ids)
    publish(records.state, plan, provenance, lambda rows: progress.show("fuse", rows, total))


def _contributor(records: Records, name: str, election: dict[str, dict[str, float]]) -> Contributor:
    alignment, described = records.alignment(name), records.description(name)
    if alignment is None or described is None:
        raise ParticipantError(f"nothing is known of {name}; run the same command again")
    return Contributor(
        name=name,
        prior=described["prior"],
        weights_sha256=described["weights_sha256"],
        alignment_sha256=alignment.sha256,
        uniformity=election["uniformity"][name],
        r2_heldout=alignment.r2_heldout,
    )
