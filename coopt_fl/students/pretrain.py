"""Students by any objective, over several seeds, and how many times faster one is than another."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from coopt_fl.config.load import to_dict
from coopt_fl.config.schema import Config
from coopt_fl.core import typed
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import make_folder, understood, write_json
from coopt_fl.core.progress import Progress
from coopt_fl.core.runtime import is_first_process
from coopt_fl.optimized.preparation import Preparation, preparation
from coopt_fl.optimized.read import OptimizedDataset, load
from coopt_fl.students import Judge, Point, TrainResult, speed_up, train_student
from coopt_fl.students.curve import mean_and_spread
from coopt_fl.students.objectives import ON_TARGETS
from coopt_fl.students.probe import random_student

RESULT = "pretrain.json"
"""What ``coopt pretrain`` writes for each seed, beside the checkpoint."""

Result = Mapping[str, Any]


def read_baseline(folder: Path, seeds: Sequence[int]) -> list[Result]:
    """Return the results of the same seeds in an output directory of ``coopt pretrain``.

    Raises:
        ConfigError: One of them is not there, or is damaged.
    """
    found = []
    for seed in seeds:
        file = folder / f"seed-{seed}" / RESULT
        if not file.is_file():
            raise ConfigError(
                f"--against needs {file}, which is written at the end of a training: run the "
                f"baseline with seed {seed}, too, or give the output of another `coopt pretrain`"
            )
        found.append(_checked(file))
    return found


def _checked(file: Path) -> Result:
    """Return the result in ``file``, which has all that :func:`compare` needs of a baseline."""
    result = typed.read(file, dict[str, Any])
    with understood(file):
        _conditions(result)
        speed_up(_curve(result), _curve(result), *[_prepared(result, "sum")] * 2)
        result["objective"], mean_and_spread([result["accuracy"]])
    return result


def compare(ours: Sequence[Result], baseline: Sequence[Result]) -> dict[str, Any]:
    """Return mean and spread over the seeds of both speed-ups, see :func:`speed_up`.

    Returns:
        ``objective`` and ``accuracy`` of the baseline, and for ``sum`` and ``max`` (of the seconds
        that the participants' targets took) ``equal_epochs`` and ``to_accuracy``, the latter over
        those seeds that reach the baseline's accuracy at all, None where none does.

    Raises:
        ConfigError: They differ in more than the objective, so that seconds say nothing.
    """
    for one, other in zip(ours, baseline, strict=True):
        require_alike(one, other)
    faster: dict[str, Any] = {}
    for which in ("sum", "max"):
        each = [
            speed_up(_curve(one), _curve(other), _prepared(one, which), _prepared(other, which))
            for one, other in zip(ours, baseline, strict=True)
        ]
        faster[which] = {key: mean_and_spread([one[key] for one in each]) for key in each[0]}
    accuracy = mean_and_spread([other["accuracy"] for other in baseline])
    return {"objective": baseline[0]["objective"], "accuracy": accuracy, **faster}


def _prepared(result: Result, which: str) -> float:
    """Return the seconds before a training, none for an objective without targets."""
    return float((result["preparation"] or {}).get(which, 0.0))


def _curve(result: Result) -> list[Point]:
    return [Point(**point) for point in result["curve"]]


def require_alike(one: Result, other: Result) -> None:
    """Raise ConfigError where seconds of two trainings cannot be compared."""
    ours, theirs = _conditions(one), _conditions(other)
    different = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    if different:
        raise ConfigError(
            f"the baseline is of another {', '.join(different)}: seconds cannot be compared; train "
            "both with the same on the same machine"
        )


def _conditions(result: Result) -> dict[str, Any]:
    """Return what the seconds depend on beside the objective."""
    config = result["config"]
    return {
        **{f"hardware ({name})": value for name, value in result["hardware"].items()},
        "data": config["data"],
        "probe": config["probe"],
        "student.model": result["model"],
        "student.batch_size": config["student"]["batch_size"],
        "student.image_size": config["student"]["image_size"],
        "runtime.precision": config["runtime"]["precision"],
    }


Summary = dict[str, Any]


def pretrain(
    config: Config,
    dataset: Path | None,
    out: Path,
    progress: Progress,
    *,
    seeds: int = 1,
    watch_every: int = 1,
    count: int | str = "auto",
    against: Path | None = None,
) -> Summary:
    """Train a student by ``config.student.objective`` with each seed; continue what was stopped.

    Args:
        config: The data, the student, and the first seed.
        dataset: A run directory, or the dataset folder in it, for an objective on targets.
        out: Gets a folder ``seed-S`` for each, with ``checkpoint.pt`` and ``pretrain.json``.
        progress: Told of every epoch.
        seeds: How many, one after another from ``config.seed`` on.
        watch_every: Epochs between two probes; the last one is always probed.
        count: Devices, or "auto".
        against: Output of a baseline's pretraining, to state how many times faster this one is.

    Returns:
        The results of all seeds, and mean and standard deviation over them.

    Raises:
        ConfigError: The objective needs a dataset and there is none, or the other way round; or
            the baseline cannot be compared with.
    """
    targets = _open(config, dataset)
    prepared = preparation(dataset) if dataset else None
    each = range(config.seed, config.seed + seeds)
    baseline = read_baseline(against, each) if against else []
    judge = Judge(config.data, config.probe.limit)
    results: list[Summary] = []
    for seed in each:
        one, folder = replace(config, seed=seed), out / f"seed-{seed}"
        make_folder(folder)
        trained = train_student(
            targets,
            one.data,
            one.student,
            one.runtime,
            folder,
            seed,
            devices=count,
            ready=partial(_require_comparable, one, baseline),
            progress=partial(_show, progress, f"seed {seed}"),
            watch=judge,
            watch_every=watch_every,
        )
        if not is_first_process():
            continue  # a process that was started for a later seed, where it ends
        start = judge(random_student(one.student, one.data, seed)).accuracy
        results.append(_result(one, trained, targets, prepared, start))
        write_json(folder / RESULT, results[-1])
        for other in baseline:
            require_alike(results[-1], other)  # also one that was trained before
    return {
        "path": str(out),
        "objective": config.student.objective,
        "model": config.student.model,
        "seeds": results,
        "accuracy": mean_and_spread([one["accuracy"] for one in results]),
        "seconds": mean_and_spread([one["seconds"] for one in results]),
        "speed_up": compare(results, baseline) if baseline else None,
    }


def _open(config: Config, dataset: Path | None) -> OptimizedDataset | None:
    objective = config.student.objective
    if objective in ON_TARGETS and dataset is None:
        raise ConfigError(
            f"{objective} is trained on targets: give --dataset DIR, the output of `coopt run`"
        )
    if objective not in ON_TARGETS and dataset is not None:
        raise ConfigError(f"{objective} knows no targets; leave out --dataset")
    return None if dataset is None else load(dataset, mmap=True)


def _require_comparable(
    config: Config, baseline: Sequence[Result], hardware: dict[str, str]
) -> None:
    """Raise ConfigError where a training would not be comparable with the baseline."""
    ours = {"config": to_dict(config), "model": config.student.model, "hardware": hardware}
    for other in baseline:
        require_alike(ours, other)


def _result(
    config: Config,
    trained: TrainResult,
    targets: OptimizedDataset | None,
    prepared: Preparation | None,
    start: float | None,
) -> Summary:
    return {
        "objective": config.student.objective,
        "model": config.student.model,
        "seed": config.seed,
        "epochs": trained.epochs,
        "config": to_dict(config),
        "versions": trained.versions,
        "hardware": trained.hardware,
        "dataset_digest": targets.digest if targets else None,
        "curve": [asdict(point) for point in trained.curve],
        "preparation": asdict(prepared) if prepared else None,
        "random_accuracy": start,
        "accuracy": trained.curve[-1].accuracy,
        "seconds": trained.seconds,
        "checkpoint": str(trained.checkpoint),
    }


def _show(progress: Progress, name: str, point: Point, epochs: int) -> None:
    probed = "" if point.accuracy is None else f", probe {point.accuracy:.1%}"
    progress.show(name, point.epoch, epochs, "epochs", f"loss {point.loss:.4f}{probed}")
