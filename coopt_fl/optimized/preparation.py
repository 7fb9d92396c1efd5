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

    What participants do side by side counts once for each of them in ``sum``; in ``max`` only the
    slowest's targets do, while features of the shared set and alignments still count for all.

    Attributes:
        sum: As if one device did the work of all participants.
        max: As if each had its own.
        parts: Of the sum, by phase.
        alone: Whether no two participants shared a device; else their seconds are too many.
    """

    sum: float
    max: float
    parts: dict[str, float]
    alone: bool


def preparation(dataset: Path) -> Preparation | None:
    """Return what a run directory, or the dataset folder in it, cost; None if nobody knows.

    It is in the ``summary.json`` of a run; the time of the uniformity is in ``represent``.

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
