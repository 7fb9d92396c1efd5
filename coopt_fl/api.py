"""A whole run: optimize the data, train a student, probe it, sum up."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from coopt_fl.commands import train_on
from coopt_fl.config.load import dataset_key, keyed, to_dict
from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ConfigError, PriorError, error_coded
from coopt_fl.core.files import write_json
from coopt_fl.core.progress import Progress
from coopt_fl.core.runtime import pick_device
from coopt_fl.data import Source, open_source, shared_set
from coopt_fl.federation.centralized import optimize_centrally, single
from coopt_fl.federation.plan import read_plan
from coopt_fl.federation.state import RunState, open_state
from coopt_fl.optimized.provenance import Provenance, read_provenance, versions
from coopt_fl.priors import check_prior, load_prior, parse_prior
from coopt_fl.privacy import check as check_privacy
from coopt_fl.students import probe_prior, probe_random, probe_student
from coopt_fl.students.models import check_student
from coopt_fl.students.objectives import ON_TARGETS, find_objective

Summary = dict[str, Any]
Optimizer = Callable[[Config, Source, RunState, Progress], None]


def run(config: Config, out: Path, progress: Progress) -> Summary:
    """Do the main job in a simulation on this host; continue where an earlier run was stopped.

    Args:
        config: the run.
        out: output directory; ``dataset/``, ``student/`` and ``summary.json`` are made in it.
        progress: told what happens.

    Raises:
        CooptError: what went wrong, with its exit code; ``out`` keeps what was done.
    """
    from coopt_fl.federation.simulation import simulate

    return execute(config, out, progress, _with_priors(simulate))


def centralized(config: Config, prior: str, out: Path, progress: Progress) -> Summary:
    """Do the same with one prior for all samples, without Flower: the baseline."""
    return execute(single(config, prior), out, progress, _with_priors(optimize_centrally))


def execute(config: Config, out: Path, progress: Progress, optimizer: Optimizer) -> Summary:
    """Optimize with ``optimizer`` unless that is done, then train, probe and sum up."""
    source = open_source(config.data)
    key = dataset_key(config, source.fingerprint)
    with open_state(out, key, keyed(config)) as state:
        progress.record = state.add_seconds
        if not (state.dataset / "provenance.json").exists():
            _require_usable(config, source)
            optimizer(config, source, state, progress)
        return finish(config, state, progress)


def finish(config: Config, state: RunState, progress: Progress) -> Summary:
    """Train and probe a student on the published dataset; write and return the summary."""
    provenance, limit = read_provenance(state.dataset), config.probe.limit
    with progress.phase("student"):
        trained = _train(config, state, progress)
    with progress.phase("probe"):
        accuracy = _remembered(
            state,
            "student",
            [provenance.digest, vars(config.student), limit],
            lambda: probe_student(Path(trained["checkpoint"]), config.data, limit=limit),
        )
        comparison = _compare(config, state, provenance, progress)
    summary: Summary = {
        "dataset": {
            "path": str(state.dataset),
            "digest": provenance.digest,
            "rows": provenance.rows,
            "dim": provenance.dim,
        },
        "reference": provenance.reference,
        "participants": _participants(state, provenance),
        "student": {
            "model": config.student.model,
            "epochs": config.student.epochs,
            "probe_accuracy": accuracy,
            "seconds": trained["seconds"],
        },
        "comparison": comparison,
        "seconds": state.record("seconds") | _of_this_student(state, trained),
        "config": to_dict(config),
        "versions": versions(),
    }
    write_json(state.out / "summary.json", summary)
    return summary


def _train(config: Config, state: RunState, progress: Progress) -> Summary:
    """Train here, or, on several GPUs, in a process of its own that may start others."""
    out = state.out / "student"
    if torch.cuda.device_count() < 2:
        return train_on(state.dataset, config, out, progress, "auto")
    settings = [f"student.{key}={json.dumps(value)}" for key, value in vars(config.student).items()]
    settings.append(f"data.root={json.dumps(config.data.root)}")
    command = [sys.executable, "-m", "coopt_fl", "train", str(state.dataset), *settings]
    child = subprocess.run(
        [*command, "--out", str(out), "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    if child.returncode:
        raise error_coded(child.returncode, "training the student failed, see above")
    trained: Summary = json.loads(child.stdout.splitlines()[-1])
    return trained


def _of_this_student(state: RunState, trained: Summary) -> dict[str, float]:
    """Return the seconds of the student that is there, without those of any that it replaced."""
    probes = (state.record("probes") or {}).values()
    return {
        "student": trained["seconds"],
        "probe": sum(one.get("seconds", 0.0) for one in probes),
    }


def _compare(
    config: Config, state: RunState, provenance: Provenance, progress: Progress
) -> dict[str, float | None]:
    """Return the two references: a random student, and the best accepted prior itself."""
    best = state.record("reference")["best"]
    prior = next(one.prior for one in provenance.contributors if one.name == best)
    limit = config.probe.limit
    return {
        "random_init": _remembered(
            state,
            "random_init",
            [vars(config.student), config.seed, limit],
            lambda: probe_random(config.student, config.data, config.seed, limit=limit),
        ),
        "reference_prior": _of_prior(prior, config, state, progress),
    }


def _of_prior(prior: str, config: Config, state: RunState, progress: Progress) -> float | None:
    """Return the probe of ``prior``, or None where it is not the platform's to load.

    In a deployment a participant may own a prior that nobody else has, or name another one.
    """
    if prior not in [participant.prior for participant in config.participants]:
        return None
    limit = config.probe.limit
    try:
        return _remembered(
            state,
            "reference_prior",
            [prior, limit],
            lambda: probe_prior(load_prior(prior, pick_device()), config.data, limit),
        )
    except PriorError as error:
        progress.warn(f"the reference prior is not probed: {error}")
        return None


def _remembered(
    state: RunState, name: str, key: Any, compute: Callable[[], float | None]
) -> float | None:
    """Return the stored value of ``name`` if it was made with the same ``key``, else compute it."""
    known = state.record("probes") or {}
    if known.get(name, {}).get("key") != key:
        started = time.perf_counter()
        value = compute()
        known[name] = {"key": key, "value": value, "seconds": time.perf_counter() - started}
        state.save_record("probes", known)
    found: float | None = known[name]["value"]
    return found


def _participants(state: RunState, provenance: Provenance) -> list[Summary]:
    """Return one row per participant for the summary."""
    plan, uploads = read_plan(state), state.record("uploads") or {}
    rows = []
    for contributor in provenance.contributors:
        blocks = plan.blocks_of(contributor.name) if plan else []
        samples = sum(provenance.block_rows[index] for index in blocks)
        seconds = sum(state.block_seconds(index) for index in blocks)
        rows.append(
            {
                "name": contributor.name,
                "prior": contributor.prior,
                "uniformity": contributor.uniformity,
                "r2_heldout": contributor.r2_heldout,
                "samples": samples,
                "seconds": seconds,
                "samples_per_s": samples / seconds if seconds else 0.0,
                "mb": uploads.get(contributor.name, 0) / 1e6,
            }
        )
    return rows


def _require_usable(config: Config, source: Source) -> None:
    """Fail before anything is started where it could only fail later."""
    shared_set(source.ids, config.shared.size, config.seed)
    check_privacy(config.privacy, config.targets.dim)
    for participant in config.participants:
        parse_prior(participant.prior)
    check_student(config.student.model)
    if config.student.objective not in ON_TARGETS:
        raise ConfigError(
            f"student.objective={config.student.objective} knows no targets, and this makes some: "
            f"set it to {' or '.join(ON_TARGETS)}, or train without by `coopt pretrain`"
        )
    find_objective(config.student.objective)


def _with_priors(optimizer: Optimizer) -> Optimizer:
    """Return ``optimizer`` for a run whose priors are all loaded on this host, if they can be."""

    def optimize(config: Config, source: Source, state: RunState, progress: Progress) -> None:
        for participant in config.participants:
            if problem := check_prior(participant.prior):
                raise PriorError(f"participant {participant.name}: {problem}")
        optimizer(config, source, state, progress)

    return optimize
