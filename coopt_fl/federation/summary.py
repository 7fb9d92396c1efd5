"""``summary.json``: a run's dataset, what each participant did, and its student's accuracy."""

from collections.abc import Iterable, Mapping, Sequence
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
        provenance: its dataset's provenance.
        trained: what the training of its student returned.
        accuracy: the student's probe accuracy.
        comparison: the accuracies of other probes, by name.

    Returns:
        The summary. In it, ``seconds`` of a phase are summed over all attempts at the run, and
        ``earlier_seconds``, where there are any, over those before the last attempt at the phase.
    """
    probes = state.record("probes", dict[str, dict[str, Any]]) or {}
    spent, earlier = _seconds(state.attempts())
    plan, uploads = read_plan(state), state.record("uploads", dict[str, int]) or {}
    spent["student"] = trained["seconds"]
    spent["probe"] = sum(one.get("seconds", 0.0) for one in probes.values())
    earlier["student"] = trained.get("earlier_seconds", 0.0)
    earlier["probe"] = _before_the_last(probes.values())
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
        "earlier_seconds": {phase: seconds for phase, seconds in earlier.items() if seconds},
        "config": asdict(config),
        "versions": versions(),
    }


def _seconds(attempts: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds of each phase in all attempts, and in those before the phase's last."""
    spent: dict[str, float] = {}
    earlier: dict[str, float] = {}
    for attempt in attempts:
        for phase, seconds in attempt.items():
            earlier[phase] = spent.get(phase, 0.0)
            spent[phase] = earlier[phase] + seconds
    return spent, earlier


def _before_the_last(probes: Iterable[Mapping[str, Any]]) -> float:
    """Return the seconds of probes that were made before the last attempt that made one."""
    made: list[tuple[int, float]] = [
        (one.get("attempt", 0), one.get("seconds", 0.0)) for one in probes
    ]
    last = max((attempt for attempt, _ in made), default=0)
    return sum(seconds for attempt, seconds in made if attempt < last)


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
