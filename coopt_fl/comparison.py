"""How many times faster a training was than a baseline's."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coopt_fl.errors import ConfigError
from coopt_fl.seeds import mean_and_spread
from coopt_fl.students import Point, speed_up

RESULT = "pretrain.json"
"""What ``coopt pretrain`` writes for each seed, beside the checkpoint."""

Result = Mapping[str, Any]


def read_baseline(folder: Path, seeds: Sequence[int]) -> list[Result]:
    """Return the results of the same seeds in an output directory of ``coopt pretrain``.

    Raises:
        ConfigError: One of them is not there.
    """
    found = []
    for seed in seeds:
        file = folder / f"seed-{seed}" / RESULT
        if not file.is_file():
            raise ConfigError(
                f"--against needs {file}, which is written at the end of a training: run the "
                f"baseline with seed {seed}, too, or give the output of another `coopt pretrain`"
            )
        found.append(json.loads(file.read_text()))
    return found


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
        _require_alike(one, other)
    faster: dict[str, Any] = {}
    for which in ("sum", "max"):
        each = [
            speed_up(_curve(one), _curve(other), (one["preparation"] or {}).get(which, 0.0))
            for one, other in zip(ours, baseline, strict=True)
        ]
        faster[which] = {key: mean_and_spread([one[key] for one in each]) for key in each[0]}
    accuracy = mean_and_spread([other["accuracy"] for other in baseline])
    return {"objective": baseline[0]["objective"], "accuracy": accuracy, **faster}


def _curve(result: Result) -> list[Point]:
    return [Point(**point) for point in result["curve"]]


def _require_alike(one: Result, other: Result) -> None:
    known = [
        {
            "hardware": result["hardware"],
            "data": result["config"]["data"],
            "student.model": result["model"],
            "student.batch_size": result["config"]["student"]["batch_size"],
            "runtime.precision": result["config"]["runtime"]["precision"],
        }
        for result in (one, other)
    ]
    different = [key for key in known[0] if known[0][key] != known[1][key]]
    if different:
        raise ConfigError(
            f"--against is of another {', '.join(different)}: seconds cannot be compared; train "
            "both with the same on the same machine"
        )
