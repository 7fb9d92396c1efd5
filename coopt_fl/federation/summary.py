"""``summary.json``: what a run made, who did how much of it, and what its student is worth."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from coopt_fl.config.schema import Config
from coopt_fl.federation.plan import Plan, read_plan
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.provenance import Contributor, Provenance, versions


def summary(
    config: Config,
    state: RunState,
    provenance: Provenance,
    trained: Mapping[str, Any],
    accuracy: float | None,
    comparison: Mapping[str, float | None],
) -> dict[str, Any]:
    """Return the summary of a finished run, as plain values.

    Args:
        config: the run.
        state: its state.
        provenance: of its dataset.
        trained: what the training of its student returned.
        accuracy: of the student's probe.
        comparison: of other probes, by name.
    """
    probes = state.record("probes", dict[str, dict[str, Any]]) or {}
    spent = state.record("seconds", dict[str, float]) or {}
    plan, uploads = read_plan(state), state.record("uploads", dict[str, int]) or {}
    spent["student"] = trained["seconds"]
    spent["probe"] = sum(one.get("seconds", 0.0) for one in probes.values())
    return {
        "dataset": {
            "path": str(state.dataset),
            "digest": provenance.digest,
            "rows": provenance.rows,
            "dim": provenance.dim,
        },
        "reference": provenance.reference,
        "participants": [
            _participant(state, provenance, contributor, plan, uploads)
            for contributor in provenance.contributors
        ],
        "student": {
            "model": config.student.model,
            "epochs": config.student.epochs,
            "probe_accuracy": accuracy,
            "seconds": trained["seconds"],
        },
        "comparison": comparison,
        "seconds": spent,
        "config": asdict(config),
        "versions": versions(),
    }


def _participant(
    state: RunState,
    provenance: Provenance,
    contributor: Contributor,
    plan: Plan | None,
    uploads: Mapping[str, int],
) -> dict[str, Any]:
    blocks = plan.blocks_of(contributor.name) if plan else []
    samples = sum(provenance.block_rows[index] for index in blocks)
    seconds = sum(state.block_seconds(index) for index in blocks)
    return {
        "name": contributor.name,
        "prior": contributor.prior,
        "uniformity": contributor.uniformity,
        "r2_heldout": contributor.r2_heldout,
        "samples": samples,
        "seconds": seconds,
        "samples_per_s": samples / seconds if seconds else 0.0,
        "mb": uploads.get(contributor.name, 0) / 1e6,
    }
