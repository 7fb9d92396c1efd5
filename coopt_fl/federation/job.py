"""The whole job of a run: check, optimize, train a student, probe it, write the summary."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from coopt_fl.config.key import student_code
from coopt_fl.config.load import from_tree
from coopt_fl.config.schema import Config
from coopt_fl.core.apart import run_apart
from coopt_fl.core.errors import ConfigError, DataError, PriorError
from coopt_fl.core.files import write_json
from coopt_fl.core.progress import Level, Progress, console_progress
from coopt_fl.core.runtime import arithmetic, pick_device
from coopt_fl.data import shared_set
from coopt_fl.data.on_gpu import require_gpu
from coopt_fl.data.partition import explained, partition
from coopt_fl.federation.groups import Groups
from coopt_fl.federation.holding import open_run, whole_run
from coopt_fl.federation.plan import require_parts
from coopt_fl.federation.records import Records
from coopt_fl.federation.state import RunState
from coopt_fl.federation.summary import summary
from coopt_fl.given import take_parts
from coopt_fl.optimized.licences import restated
from coopt_fl.optimized.provenance import read_provenance
from coopt_fl.optimized.read import load
from coopt_fl.priors import check_prior, load_prior, parse_prior
from coopt_fl.privacy import check as check_privacy
from coopt_fl.registry import PARTS
from coopt_fl.students.checkpoint import load_student
from coopt_fl.students.doubts import check_data
from coopt_fl.students.images import own_size
from coopt_fl.students.initial import student_settings
from coopt_fl.students.models import check_features, check_student
from coopt_fl.students.objectives import find_objective, on_targets
from coopt_fl.students.probe import (
    VERSION,
    probe_prior,
    probe_student,
    probing,
    random_student,
)
from coopt_fl.students.session import training_dtype
from coopt_fl.students.trackers import check_tracker
from coopt_fl.students.train import train_student

Summary = dict[str, Any]

Compute = Callable[[], float | None]


def whole_job(
    config: Config,
    out: Path,
    progress: Progress,
    optimize: Callable[[], object],
    *,
    own_priors: bool = True,
    keep: Callable[[], None] | None = None,
) -> Summary:
    """Check, optimize, train a student, probe it, write ``summary.json``; resume what was stopped.

    Args:
        config: the run.
        out: output directory; ``dataset/``, ``student/`` and ``summary.json`` are made in it.
        progress: receives phases, progress and warnings.
        optimize: publishes the optimized dataset in ``out``; not called if it is published already.
        own_priors: whether all priors are loaded on this host.
        keep: called first, once ``out`` is held.

    Raises:
        CooptError: the run failed; ``out`` keeps the finished work, which the next call resumes.
    """
    with whole_run(out, progress):
        if keep is not None:
            keep()
        if not _prepare(config, out, progress, own_priors):
            optimize()
        return _finish(config, out, progress)


def _prepare(config: Config, out: Path, progress: Progress, own_priors: bool) -> bool:
    """Check what would otherwise fail late; return whether the dataset is already published."""
    with open_run(config, out, progress) as (source, state):
        if not state.published:
            shared_set(source.ids, config.shared.size, config.seed, config.data)
            if parts := partition(config, source):
                require_parts(state, config, source.ids, Groups(parts, owned=True))
                progress.warn(explained(config, parts))
            check_privacy(config.privacy, config.targets.dim)
            for participant in config.participants:
                parse_prior(participant.prior)
            check_student(config.student.model)
            check_tracker(config.tracker)
            training_dtype(config)
            if config.data.decode == "device":
                require_gpu()
            if own_priors and config.simulation.address is None:
                device = pick_device() if config.simulation.gpus != 0 else torch.device("cpu")
                arithmetic(config.runtime.precision, device)
            if not on_targets(config.student.objective):
                known = filter(on_targets, PARTS.names("objective"))
                raise ConfigError(
                    f"student.objective={config.student.objective} does not use targets, but this "
                    f"run makes them: set it to {' or '.join(known)}, or train without targets by "
                    "`coopt pretrain`"
                )
            find_objective(config.student.objective)
            for participant in config.participants if own_priors else ():
                if problem := check_prior(participant.prior):
                    raise PriorError(f"participant {participant.name}: {problem}")
            size = config.student.image_size or own_size(source)
            check_features(config.student.model, size)
            check_data(config.data, config.probe.limit, progress, source)
        elif changes := restated(read_provenance(state.dataset), config):
            progress.warn(
                f"{state.dataset} is finished and keeps the licences that it states "
                f"({'; '.join(changes)}): to change them, delete it and {out / 'student'}, "
                "and run the same command again: it writes the same targets, and trains the "
                "student again"
            )
        return state.published


def _finish(config: Config, out: Path, progress: Progress) -> Summary:
    """Train and probe a student on the published dataset; write and return the summary.

    The caller holds ``out`` (:func:`whole_run`) and has prepared it, so the source is not opened.
    """
    state = RunState(out)
    provenance, limit = read_provenance(state.dataset), config.probe.limit
    with progress.phase("student"):
        trained = _train(config, state, progress)
    with progress.phase("probe"), _after_training(Path(trained["checkpoint"])):
        accuracy = _remembered(
            config,
            state,
            "student",
            [provenance.digest, _student(config), limit],
            lambda: probe_student(
                load_student(Path(trained["checkpoint"]), config.student.model),
                config.data,
                limit,
                probing(progress, "the student"),
            ),
        )
        comparison = _compare(config, state, progress)
    start = comparison["random_init"]
    if accuracy is not None and start is not None and accuracy <= start < 1:
        progress.warn(
            f"the student ({accuracy:.1%}) is no better than an untrained one ({start:.1%}): raise "
            f"student.epochs={config.student.epochs}, or lower student.batch_size"
        )
    found = summary(config, state, provenance, trained, accuracy, comparison)
    write_json(out / "summary.json", found)
    return found


@contextmanager
def _after_training(student: Path) -> Iterator[None]:
    """Add where the finished student is to a DataError that the block raises."""
    try:
        yield
    except DataError as error:
        raise DataError(
            f"the student {student} is finished, but cannot be judged: {error}; then run the same "
            "command again, which does not train it again"
        ) from error


def train_on(
    folder: Path, config: Config, out: Path, progress: Progress, devices: int | str
) -> dict[str, Any]:
    """Train on the dataset in ``folder``; continue a training that was stopped in ``out``."""
    trained = train_student(
        load(folder, mmap=True),
        config,
        out,
        devices=devices,
        begun=lambda done, epochs: progress.show("student", done, epochs, "epoch"),
        progress=lambda point, epochs: progress.show(
            "student", point.epoch, epochs, "epoch", f"loss {point.loss:.4f}"
        ),
    )
    return {
        "checkpoint": str(trained.checkpoint),
        "model": config.student.model,
        "epochs": len(trained.curve),
        "seconds": trained.curve[-1].seconds,
        "earlier_seconds": trained.meta.get("earlier_seconds", 0.0),
        "loss_per_epoch": [point.loss for point in trained.curve],
    }


def train_job(folder: str, config: dict[str, Any], out: str, level: Level) -> None:
    """Train on all devices, by a configuration given as plain values."""
    take_parts(config["plugins"])
    with console_progress(level) as progress:
        train_on(Path(folder), from_tree(config, [], "the run"), Path(out), progress, "auto")


def _train(config: Config, state: RunState, progress: Progress) -> Summary:
    """Train the student; with several GPUs, in a separate process that may start others."""
    folder, out = state.dataset, state.out / "student"
    if torch.cuda.device_count() > 1:
        job = f"{__name__}:train_job"
        plain = {"folder": str(folder), "config": asdict(config), "out": str(out)}
        run_apart(job, **plain, level=progress.level)
    return train_on(folder, config, out, progress, "auto")  # after run_apart: finds it finished


def _compare(config: Config, state: RunState, progress: Progress) -> dict[str, float | None]:
    """Return the probe accuracy of a random student and of the best accepted prior.

    The prior's is None where the platform cannot load it: in a deployment a participant may own a
    prior that nobody else has, or name one that is not in the configuration.
    """
    records, limit = Records(state), config.probe.limit
    described = records.description(records.election.best) or {}
    prior = described.get("prior", "")  # with its path, which the provenance lacks
    found = {
        "random_init": _remembered(
            config,
            state,
            "random_init",
            [_student(config), config.seed, limit],
            lambda: probe_student(
                random_student(config.student, config.data, config.seed),
                config.data,
                limit,
                probing(progress, "an untrained student"),
            ),
        ),
        "reference_prior": None,
    }
    if prior in [participant.prior for participant in config.participants]:
        try:
            found["reference_prior"] = _remembered(
                config,
                state,
                "reference_prior",
                [prior, limit],
                lambda: probe_prior(
                    load_prior(prior, pick_device()),
                    config.data,
                    limit,
                    probing(progress, "the reference prior"),
                ),
            )
        except PriorError as error:
            progress.warn(f"the reference prior is not probed: {error}")
    return found


def _student(config: Config) -> dict[str, Any]:
    """Return what a student's score depends on, as plain values."""
    known = student_settings(config.student)
    dtype = training_dtype(config)
    reduced = {} if dtype == torch.float32 else {"precision": str(dtype)}
    return known | reduced | student_code(config)


def _judged_by(config: Config) -> list[str | None]:
    """Return the label column and test split of the probe, if the configuration chooses either."""
    chosen = [config.data.label_column, config.data.split.test]
    return chosen if any(chosen) else []


def _remembered(
    config: Config, state: RunState, name: str, made_of: list[Any], compute: Compute
) -> float | None:
    """Return the stored score of ``name`` if its key is the same, else compute and store it."""
    key = [VERSION, *_judged_by(config), *made_of]
    known = state.record("probes", dict[str, dict[str, Any]]) or {}
    if known.get(name, {}).get("key") != key:
        started = time.perf_counter()
        value = compute()
        spent, attempt = time.perf_counter() - started, len(state.attempts())
        known[name] = {"key": key, "value": value, "seconds": spent, "attempt": attempt}
        state.save_record("probes", known)
    found: float | None = known[name]["value"]
    return found
