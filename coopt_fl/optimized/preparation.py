"""What an optimized dataset cost before a student could be trained on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coopt_fl.core import typed
from coopt_fl.core.files import understood
from coopt_fl.optimized.read import dataset_folder


@dataclass(frozen=True)
class Preparation:
    """Seconds before training: features of the shared set, alignment, targets, fusion, transport.

    Features of the shared set and alignments count for all participants in ``sum`` and in ``max``;
    targets count for all in ``sum``, and for the slowest participant in ``max``.

    Attributes:
        sum: As if one device did the work of all participants.
        max: As if each participant had its own device.
        parts: The parts of ``sum``, by phase.
        alone: Whether no two participants shared a device; shared devices inflate their seconds.
    """

    sum: float
    max: float
    parts: dict[str, float]
    alone: bool


def preparation(dataset: Path) -> Preparation | None:
    """Return what the dataset in a run directory, or dataset folder, cost; None if not recorded.

    It is read from the run's ``summary.json``. The time of the uniformity is in ``represent``.

    Raises:
        ConfigError: ``summary.json`` is damaged, or of another version.
    """
    file = dataset_folder(dataset).parent / "summary.json"
    if not file.is_file():
        return None
    with understood(file):
        summary = typed.read(file, dict[str, Any])
        targets = [float(one["seconds"]) for one in summary["participants"]]
        spent: dict[str, float] = summary["seconds"]
        parts = {phase: spent.get(phase, 0.0) for phase in ("represent", "align", "fuse")}
        parts["transport"] = max(0.0, spent.get("optimize", 0.0) - sum(targets))
        shared = sum(parts.values())
        parts["optimize"] = sum(targets)
        alone = len(targets) == 1 or summary["config"]["simulation"]["actors"] == 1
        return Preparation(shared + sum(targets), shared + max(targets), parts, alone)
