"""How many times faster a training was than a baseline's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import read_json, understood
from coopt_fl.core.statistics import mean_and_spread
from coopt_fl.students import Point, speed_up

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
    result = read_json(file)
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
