"""Results as they are kept: rows, with what they were measured on."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from coopt_fl.bench.case import Row
from coopt_fl.core.errors import ConfigError
from coopt_fl.optimized.provenance import versions

FORMAT = 2

Results = dict[str, Any]
"""``format``, ``command``, ``date``, ``hardware``, ``versions`` and ``rows``."""


def results_of(command: Sequence[str]) -> Results:
    """Return results that are measured here and now, without a row yet."""
    return {
        "format": FORMAT,
        "command": " ".join(command),
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "versions": versions(),
        "rows": list[Row](),
    }


def read(path: Path) -> Results:
    """Return earlier results.

    Raises:
        ConfigError: the file cannot be read, or another version wrote it.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as results of `coopt bench`: {error}") from None
    known = found.get("format") if isinstance(found, dict) else None
    if known != FORMAT or not _are_rows(found.get("rows")):
        raise ConfigError(
            f"{path} is of format {known}, not {FORMAT}, or holds no rows: compare with a file "
            "that `coopt bench --out FILE` of this version wrote"
        )
    kept: Results = found
    return kept


def _are_rows(rows: Any) -> bool:
    return isinstance(rows, list) and all(
        isinstance(row, dict) and row.keys() >= {"name", "figure"} for row in rows
    )


def hardware() -> dict[str, Any]:
    """Return what this host computes with."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": gpus,
    }


def _processor() -> str:
    """Return the processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
