"""What the commands do, one function each; the command line and the ServerApp call these."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from coopt_fl.config.load import data_from, from_tree
from coopt_fl.config.schema import Config
from coopt_fl.core import typed
from coopt_fl.core.apart import run_apart
from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.core.files import understood, write_json
from coopt_fl.core.progress import Progress, console_progress
from coopt_fl.core.remote import shown
from coopt_fl.core.runtime import pick_device
from coopt_fl.data import open_source, shared_set
from coopt_fl.data.shards import publish
from coopt_fl.federation.centralized import optimize_centrally, single
from coopt_fl.federation.decisions import layout_of
from coopt_fl.federation.records import Records
from coopt_fl.federation.state import RunState, open_run, whole_run
from coopt_fl.federation.summary import summary
from coopt_fl.optimized.provenance import read_provenance
from coopt_fl.optimized.read import dataset_folder, load
from coopt_fl.optimized.verify import verify
from coopt_fl.priors import check_prior, load_prior, parse_prior
from coopt_fl.privacy import check as check_privacy
from coopt_fl.students.checkpoint import load_student
from coopt_fl.students.models import check_student
from coopt_fl.students.objectives import ON_TARGETS, find_objective
from coopt_fl.students.probe import Judge, probe_prior, probe_student, random_student
from coopt_fl.students.train import train_student

Summary = dict[str, Any]

REPORT_NEEDS = ("jinja2", "matplotlib", "openTSNE")
"""What the extra ``coopt-fl[report]`` brings."""


def run(config: Config, out: Path, progress: Progress) -> Summary:
    """Do the main job in a simulation on this host; continue where an earlier run was stopped.

    Args:
        config: the run.
        out: output directory; ``dataset/``, ``student/`` and ``summary.json`` are made in it.
        progress: told what happens.

    Raises:
        CooptError: what went wrong, with its exit code; ``out`` keeps what was done.
    """
    with whole_run(out, progress):
        published = prepare(config, out, progress, own_priors=True)
        if not published:
            from coopt_fl.federation.simulation import simulate

            simulate(config, out, progress)
        return finish(config, out, progress)


def centralized(config: Config, prior: str, out: Path, progress: Progress) -> Summary:
    """Do the same with one prior for all samples, without Flower: the baseline."""
    config = single(config, prior)
    with whole_run(out, progress):
        published = prepare(config, out, progress, own_priors=True)
        if not published:
            optimize_centrally(config, out, progress)
        return finish(config, out, progress)


def prepare(config: Config, out: Path, progress: Progress, *, own_priors: bool = False) -> bool:
    """Refuse before any work what could only fail later; return whether the dataset is there.

    Args:
        config: the run.
        out: its directory.
        progress: told where its seconds go.
        own_priors: whether all priors are loaded on this host.

    Raises:
        CooptError: what cannot work.
    """
    with open_run(config, out, progress) as (source, state):
        if not state.published:
            shared_set(source.ids, config.shared.size, config.seed)
            check_privacy(config.privacy, config.targets.dim)
            for participant in config.participants:
                parse_prior(participant.prior)
            check_student(config.student.model)
            if config.student.objective not in ON_TARGETS:
                raise ConfigError(
                    f"student.objective={config.student.objective} knows no targets, and this "
                    f"makes some: set it to {' or '.join(ON_TARGETS)}, or train without by "
                    "`coopt pretrain`"
                )
            find_objective(config.student.objective)
            for participant in config.participants if own_priors else ():
                if problem := check_prior(participant.prior):
                    raise PriorError(f"participant {participant.name}: {problem}")
        return state.published


def finish(config: Config, out: Path, progress: Progress) -> Summary:
    """Train and probe a student on the published dataset; write and return the summary.

    The command holds ``out`` (:func:`whole_run`) and has prepared it, so the data are not opened.
    """
    state = RunState(out)
    provenance, limit = read_provenance(state.dataset), config.probe.limit
    with progress.phase("student"):
        trained = _train(config, state, progress)
    with progress.phase("probe"):
        accuracy = _remembered(
            state,
            "student",
            [provenance.digest, vars(config.student), limit],
            lambda: probe_student(load_student(Path(trained["checkpoint"])), config.data, limit),
        )
        comparison = _compare(config, state, progress)
    found = summary(config, state, provenance, trained, accuracy, comparison)
    write_json(out / "summary.json", found)
    return found


def train(
    dataset: Path, changes: list[str], out: Path | None, progress: Progress, devices: int | str
) -> dict[str, Any]:
    """Train a student on the optimized dataset in ``dataset``, with its configuration and changes.

    Args:
        dataset: a run directory or the dataset folder in it.
        changes: ``KEY=VALUE`` settings, such as ``student.epochs=5`` or where the images are now.
        out: where the checkpoint goes; None: ``students/MODEL`` beside the dataset.
        progress: told of every epoch.
        devices: how many, or "auto".
    """
    folder = dataset_folder(dataset)
    tree, here = read_provenance(folder).config, folder.parent / "summary.json"
    if tree["data"]["root"] is None and here.is_file():  # a shared dataset does not say
        with understood(here):
            tree["data"]["root"] = typed.read(here, dict[str, Any])["config"]["data"]["root"]
    config = from_tree(tree, changes, str(dataset))
    out = out or folder.parent / "students" / config.student.model.replace(":", "-")
    return train_on(folder, config, out, progress, devices)


def train_on(
    folder: Path, config: Config, out: Path, progress: Progress, devices: int | str
) -> dict[str, Any]:
    """Train on the dataset in ``folder``; continue a training that was stopped in ``out``."""
    trained = train_student(
        load(folder, mmap=True),
        config,
        out,
        devices=devices,
        progress=lambda point, epochs: progress.show(
            "student", point.epoch, epochs, "epochs", f"loss {point.loss:.4f}"
        ),
    )
    return {
        "checkpoint": str(trained.checkpoint),
        "model": config.student.model,
        "epochs": len(trained.curve),
        "seconds": trained.curve[-1].seconds,
        "loss_per_epoch": [point.loss for point in trained.curve],
    }


def train_job(folder: str, config: dict[str, Any], out: str) -> None:
    """Train as a run says, given as plain values, on all devices."""
    with console_progress() as progress:
        train_on(Path(folder), from_tree(config, [], "the run"), Path(out), progress, "auto")


def probe(checkpoint: Path, changes: list[str]) -> dict[str, Any]:
    """Judge the student in ``checkpoint`` by both probes, on the data that it was trained on.

    Args:
        checkpoint: a ``.pt`` file.
        changes: ``data.KEY=VALUE`` settings to judge it elsewhere.

    Raises:
        ConfigError: ``checkpoint`` is not one, or a change is not of the data.
    """
    student = load_student(checkpoint)
    if others := [change for change in changes if not change.startswith("data.")]:
        raise ConfigError(
            f"a probe depends on the data alone, so {', '.join(others)} would change nothing; "
            "give only data.KEY=VALUE"
        )
    data = data_from(student.meta["data"], changes, str(checkpoint))
    return {"checkpoint": str(checkpoint), "accuracy": Judge(data).accuracies(student)}


def inspect(dataset: Path) -> dict[str, Any]:
    """Verify the optimized dataset in ``dataset``; ``problems`` is empty when all is right."""
    folder = dataset_folder(dataset)
    provenance, problems = verify(folder)
    return {"path": str(folder), "provenance": asdict(provenance), "problems": problems}


def report(runs: list[Path], out: Path, progress: Progress) -> dict[str, Any]:
    """Write one HTML page about run directories.

    Args:
        runs: what ``coopt run``, ``centralized`` or ``pretrain`` wrote.
        out: the HTML file.
        progress: told of every run.

    Raises:
        ConfigError: a directory holds no finished run, or a package is not installed.
    """
    try:
        from coopt_fl.report.page import write_report
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in REPORT_NEEDS:
            raise
        raise ConfigError(
            f"a report needs {error.name}, which is not installed: pip install 'coopt-fl[report]'"
        ) from None
    return write_report(runs, out, progress)


def publish_shards(config: Config, url: str, progress: Progress) -> dict[str, Any]:
    """Publish the images of ``config.data`` as shards for participants that do not hold them.

    Args:
        config: of the run that they are for.
        url: a path, ``file://``, or ``s3://`` and the like.
        progress: told of every file.
    """
    source = open_source(config.data)
    layout = layout_of(config, source)
    place = url if "://" in url else str(Path(url).expanduser().resolve())
    with progress.phase("shards"):
        published = publish(
            place,
            source,
            layout,
            config.data.on_error,
            lambda done, total: progress.show("shards", done, total, "files"),
        )
    files = published.manifest.files
    return {
        "url": shown(place),
        "manifest_sha256": published.manifest_sha256,
        "source": source.name,
        "fingerprint": source.fingerprint,
        "rows": len(source),
        "files": len(files),
        "written": published.written,
        "bytes": sum(file.bytes for file in files.values()),
    }


def _train(config: Config, state: RunState, progress: Progress) -> Summary:
    """Train here, or, on several GPUs, first in a process of its own that may start others."""
    folder, out = state.dataset, state.out / "student"
    if torch.cuda.device_count() > 1:
        job = f"{__name__}:train_job"
        run_apart(job, folder=str(folder), config=asdict(config), out=str(out))
    return train_on(folder, config, out, progress, "auto")  # which finds it done


def _compare(config: Config, state: RunState, progress: Progress) -> dict[str, float | None]:
    """Return the two references: a random student, and the best accepted prior itself.

    That is None where it is not the platform's to load: in a deployment a participant may own a
    prior that nobody else has, or name another one.
    """
    records, limit = Records(state), config.probe.limit
    described = records.description(records.election.best) or {}
    prior = described.get("prior", "")  # with its path, which the provenance lacks
    found = {
        "random_init": _remembered(
            state,
            "random_init",
            [vars(config.student), config.seed, limit],
            lambda: probe_student(
                random_student(config.student, config.data, config.seed), config.data, limit
            ),
        ),
        "reference_prior": None,
    }
    if prior in [participant.prior for participant in config.participants]:
        try:
            found["reference_prior"] = _remembered(
                state,
                "reference_prior",
                [prior, limit],
                lambda: probe_prior(load_prior(prior, pick_device()), config.data, limit),
            )
        except PriorError as error:
            progress.warn(f"the reference prior is not probed: {error}")
    return found


def _remembered(
    state: RunState, name: str, key: Any, compute: Callable[[], float | None]
) -> float | None:
    """Return the stored value of ``name`` if it was made with the same ``key``, else compute it."""
    known = state.record("probes", dict[str, dict[str, Any]]) or {}
    if known.get(name, {}).get("key") != key:
        started = time.perf_counter()
        value = compute()
        known[name] = {"key": key, "value": value, "seconds": time.perf_counter() - started}
        state.save_record("probes", known)
    found: float | None = known[name]["value"]
    return found
