"""Pretraining by any objective over several seeds, and its speed-up over a baseline."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from coopt_fl.config.schema import Config, DataConfig
from coopt_fl.core import typed
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import make_folder, understood, write_json
from coopt_fl.core.log import logged
from coopt_fl.core.progress import Progress
from coopt_fl.core.runtime import is_first_process
from coopt_fl.optimized.preparation import Preparation, preparation
from coopt_fl.optimized.read import OptimizedDataset, load
from coopt_fl.students.curve import Point, mean_and_spread, speed_up
from coopt_fl.students.doubts import check_data
from coopt_fl.students.objectives import on_targets
from coopt_fl.students.probe import Judge, random_student
from coopt_fl.students.train import Record, train_student

RESULT = "pretrain.json"
"""The file that ``coopt pretrain`` writes for each seed, beside the checkpoint."""

Result = dict[str, Any]


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
) -> Result:
    """Train a student by ``config.student.objective`` with each seed, or resume the trainings.

    Args:
        config: The data, the student, and the first seed.
        dataset: A run directory, or the dataset folder in it, for an objective on targets.
        out: Output directory; each seed S gets a folder ``seed-S`` in it, with ``checkpoint.pt``
            and ``pretrain.json``.
        progress: Shows every epoch.
        seeds: Number of seeds, counted up from ``config.seed``.
        watch_every: Epochs between two probes; the last epoch is always probed.
        count: Number of devices, or "auto".
        against: Output directory of a baseline's pretraining, over which to compute the speed-up.

    Returns:
        The results of all seeds, and mean and standard deviation over them.

    Raises:
        ConfigError: The objective needs a dataset and none is given, or needs none and one is
            given; or the baseline was trained under other conditions.
    """
    targets = _open(config, dataset)
    prepared = preparation(dataset) if dataset else None
    each = range(config.seed, config.seed + seeds)
    baseline = _read_baseline(against, each) if against else []
    judge = Judge(config.data, config.probe.limit)
    results: list[Result] = []
    with logged(out, progress):
        if is_first_process():
            check_data(config.data, config.probe.limit, progress)
        for seed in each:
            one, folder = replace(config, seed=seed), out / f"seed-{seed}"
            ours = {"config": asdict(one), "model": one.student.model}
            make_folder(folder)
            trained = train_student(
                targets,
                one,
                folder,
                devices=count,
                ready=partial(_require_alike, baseline, ours),
                begun=partial(_begin, progress, f"seed {seed}"),
                progress=partial(_show, progress, f"seed {seed}"),
                watch=judge,
                watch_every=watch_every,
            )
            if not is_first_process():
                continue  # this process was started for a later seed, at whose end it exits
            start = judge(random_student(one.student, one.data, seed)).accuracy
            result = _result(one, trained, targets, prepared, start)
            write_json(folder / RESULT, result)
            _require_alike(baseline, result, result["hardware"])  # if it was trained earlier, too
            results.append(result)
    return {
        "path": str(out),
        "objective": config.student.objective,
        "model": config.student.model,
        "seeds": results,
        "accuracy": mean_and_spread([one["accuracy"] for one in results]),
        "seconds": mean_and_spread([one["seconds"] for one in results]),
        "speed_up": compare(results, baseline) if baseline else None,
    }


def compare(ours: Sequence[Result], baseline: Sequence[Result]) -> Result:
    """Return the speed-ups over a baseline, see :func:`speed_up`, as mean and spread over seeds.

    Returns:
        ``objective`` and ``accuracy`` of the baseline; and under ``sum`` and ``max``, which count
        the sum or the maximum of the participants' seconds for making targets, ``equal_epochs``
        and ``to_accuracy``. The latter is over the seeds that reach the baseline's accuracy, None
        if no seed does.

    Raises:
        ConfigError: The trainings differ in more than the objective, so their times cannot be
            compared.
    """
    pairs = list(zip(ours, baseline, strict=True))
    for one, other in pairs:
        _require_alike([other], one, one["hardware"])
    faster: Result = {}
    for which in ("sum", "max"):
        each = [_speed_up(one, other, which) for one, other in pairs]
        faster[which] = {key: mean_and_spread([found[key] for found in each]) for key in each[0]}
    accuracy = mean_and_spread([other["accuracy"] for other in baseline])
    return {"objective": baseline[0]["objective"], "accuracy": accuracy, **faster}


def _open(config: Config, dataset: Path | None) -> OptimizedDataset | None:
    objective = config.student.objective
    if on_targets(objective) and dataset is None:
        raise ConfigError(
            f"{objective} is trained on targets: give --dataset DIR, the output of `coopt run`"
        )
    if not on_targets(objective) and dataset is not None:
        raise ConfigError(f"{objective} knows no targets; leave out --dataset")
    return None if dataset is None else load(dataset, mmap=True)


def _result(
    config: Config,
    trained: Record,
    targets: OptimizedDataset | None,
    prepared: Preparation | None,
    start: float | None,
) -> Result:
    return {
        "objective": config.student.objective,
        "model": config.student.model,
        "seed": config.seed,
        "epochs": len(trained.curve),
        "config": asdict(config),
        "versions": trained.meta["versions"],
        "hardware": trained.meta["hardware"],
        "dataset_digest": targets.digest if targets else None,
        "curve": [asdict(point) for point in trained.curve],
        "preparation": asdict(prepared) if prepared else None,
        "random_accuracy": start,
        "accuracy": trained.curve[-1].accuracy,
        "seconds": trained.curve[-1].seconds,
        "checkpoint": str(trained.checkpoint),
    }


def _begin(progress: Progress, name: str, done: int, epochs: int) -> None:
    progress.show(name, done, epochs, "epoch")


def _show(progress: Progress, name: str, point: Point, epochs: int) -> None:
    probed = "" if point.accuracy is None else f", probe {point.accuracy:.1%}"
    progress.show(name, point.epoch, epochs, "epoch", f"loss {point.loss:.4f}{probed}")


def _read_baseline(folder: Path, seeds: Sequence[int]) -> list[Result]:
    """Return the results of the same seeds in an output directory of ``coopt pretrain``.

    Raises:
        ConfigError: A result is missing or damaged, or lacks a value that :func:`compare` needs.
    """
    found = []
    for seed in seeds:
        file = folder / f"seed-{seed}" / RESULT
        if not file.is_file():
            raise ConfigError(
                f"--against needs {file}, which is written at the end of a training: run the "
                f"baseline with seed {seed}, too, or give the output of another `coopt pretrain`"
            )
        result = typed.read(file, dict[str, Any])
        with understood(file):
            compare([result], [result])
        found.append(result)
    return found


def _speed_up(ours: Result, baseline: Result, which: str) -> dict[str, float | None]:
    """Return both speed-ups of one seed.

    The cost of the targets is the ``which`` ("sum" or "max") of the participants' seconds.
    """
    curves = ([Point(**point) for point in one["curve"]] for one in (ours, baseline))
    seconds = (float((one["preparation"] or {}).get(which, 0.0)) for one in (ours, baseline))
    curve, its_curve = curves
    return speed_up(curve, its_curve, *seconds)


def _require_alike(baseline: Sequence[Result], one: Result, hardware: dict[str, str]) -> None:
    """Raise ConfigError if the time of a training cannot be compared with the baseline's."""
    ours = _conditions(one, hardware)
    for other in baseline:
        theirs = _conditions(other, other["hardware"])
        untold = {"hardware (CPU)"} - (ours.keys() & theirs.keys())  # in an older result
        different = [
            key for key in ours | theirs if key not in untold and ours.get(key) != theirs.get(key)
        ]
        if different:
            raise ConfigError(
                f"the baseline is of another {', '.join(different)}: seconds cannot be compared; "
                "train both with the same settings on the same machine"
            )


def _conditions(result: Result, hardware: dict[str, str]) -> dict[str, Any]:
    """Return the settings and the hardware that determine a training's time, but its objective."""
    config = result["config"]
    data = asdict(DataConfig()) | config["data"]  # an older result lacks the newest keys
    return {
        **{f"hardware ({name})": value for name, value in hardware.items()},
        "data": {key: data[key] for key in data if key not in ("license", "max_pixels")},
        "probe": config["probe"],
        "student.model": result["model"],
        "student.batch_size": config["student"]["batch_size"],
        "student.image_size": config["student"]["image_size"],
        "student.precision": config["student"].get("precision", "float32"),
    }
