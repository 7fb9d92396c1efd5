"""``coopt bench``: running benchmarks, and storing, comparing and showing their results."""

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coopt_fl.bench import MODULES
from coopt_fl.bench.measure import SKIPPED, Row, Spread
from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.core.files import make_folder, write_json
from coopt_fl.optimized.provenance import versions
from coopt_fl.report import terminal

FORMAT = 2

Results = dict[str, Any]
"""``format``, ``command``, ``date``, ``hardware``, ``versions`` and ``rows``."""

Tell = Callable[[Row], None]


def bench(names: Sequence[str], out: Path | None, earlier: Path | None, tell: Tell) -> Results:
    """Run benchmarks, write each row to ``out`` at once, and compare with ``earlier`` results.

    Args:
        names: names of benchmarks; empty for all.
        out: JSON file for the results.
        earlier: results file of an earlier run.
        tell: called with each row as soon as it is measured.

    Raises:
        ConfigError: there is no such benchmark, or ``earlier`` is not comparable.
        OutputError: ``out`` cannot be written.
    """
    unknown = [name for name in names if name not in MODULES]
    if unknown:
        raise ConfigError(f"there is no benchmark {unknown[0]!r}; choose from {', '.join(MODULES)}")
    before = read(earlier) if earlier is not None else None
    if out is not None:
        if out.is_dir():
            raise OutputError(f"{out} is a folder; give --out a file name")
        make_folder(out.parent)
    found = results_of(["coopt bench", *names])
    for name in names or MODULES:
        for row in getattr(import_module(f"coopt_fl.bench.{MODULES[name]}"), name)():
            tell(row)
            found["rows"].append(row)
            if out is not None:
                write_json(out, found)
    return found if before is None else {**found, "comparison": compare(before, found)}


def results_of(command: Sequence[str]) -> Results:
    """Return new results of this host without rows."""
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
    """Return a description of this host's processor, cores and GPUs."""
    import torch  # takes seconds: only once the command line has been checked

    from coopt_fl.core.runtime import cpu_name

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "processor": cpu_name(),
        "cores": os.cpu_count(),
        "gpus": gpus,
    }


def compare(before: Results, after: Results) -> dict[str, Any]:
    """Compare the rows that both results have; warn of differing hardware and versions.

    A change is ``better`` or ``worse`` only if the two spreads do not overlap.
    """
    older = {row["name"]: row for row in before["rows"]}
    return {
        "warnings": list(_differences(before, after)),
        "rows": [_change(older[row["name"]], row) for row in after["rows"] if row["name"] in older],
    }


def _differences(before: Results, after: Results) -> Iterator[str]:
    """Yield a sentence for each difference in hardware and versions."""
    for group in ("hardware", "versions"):
        old, new = before[group], after[group]
        for key in sorted(old | new):
            if old.get(key) != new.get(key):
                yield f"{group}: {key} was {old.get(key)}, is {new.get(key)}"


def _change(old: Row, new: Row) -> dict[str, Any]:
    before, after = old["figure"], new["figure"]
    verdict, difference = "not measured in both", None
    if before and after:
        difference = round(after["median"] - before["median"], 5)
        verdict = _verdict(before, new)
    change = {"name": new["name"], "before": before, "after": after}
    return change | {"difference": difference, "verdict": verdict}


def _verdict(old: Spread, new: Row) -> str:
    """Return whether a figure is better or worse; higher is better unless its reach is a limit."""
    figure, reach = new["figure"], new["reach"]
    if old["min"] <= figure["max"] and figure["min"] <= old["max"]:
        return "within the spread"
    risen = figure["median"] > old["median"]
    return "better" if risen == (reach is None or reach["at_least"]) else "worse"


def rendered(found: dict[str, Any]) -> RenderableType:
    """Render results, and the comparison if there is one."""
    parts: list[RenderableType] = [_results(found["rows"]), Text(_origin(found))]
    if found.get("comparison"):
        parts.append(_changes(found["comparison"]))
        parts += [Text(f"note: {one}", style="yellow") for one in found["comparison"]["warnings"]]
    return Group(*parts)


def line(row: Row) -> str:
    """Return a row as one line of progress."""
    return f"{row['name']}: {_outcome(row)}"


def _results(rows: list[Row]) -> Table:
    shown = terminal.table("Speed", "path", "roofline", "ratio", "reach", "reached")
    for row in rows:
        reach, reached = row["reach"], {True: "yes", False: "NO", None: ""}[row["reached"]]
        bound = f"{'>=' if reach['at_least'] else '<='} {reach['bound']:g}" if reach else ""
        terminal.row(shown, row["path"], row["roofline"], _outcome(row), bound, reached)
    return shown


def _changes(comparison: dict[str, Any]) -> Table:
    shown = terminal.table(
        "Since the earlier run", "what", "before", "after", "difference", "verdict"
    )
    for row in comparison["rows"]:
        known = [_median(one) if one else "" for one in (row["before"], row["after"])]
        difference = "" if row["difference"] is None else f"{row['difference']:+.4g}"
        terminal.row(shown, row["name"], *known, difference, row["verdict"])
    return shown


def _outcome(row: Row) -> str:
    """Return the figure, or the reason why there is none."""
    if row["skipped"]:
        return f"skipped: {SKIPPED[row['skipped']]}"
    return f"{_median(row['figure'])} {row['unit']}".rstrip()


def _median(spread: Spread) -> str:
    return f"{spread['median']:.3g} ({spread['min']:.3g} to {spread['max']:.3g})"


def _origin(found: dict[str, Any]) -> str:
    hardware, versions = found["hardware"], found["versions"]
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    return (
        f"{hardware['cores']} cores ({hardware['processor']}), {gpus}; torch {versions['torch']}; "
        f"{found['date']}. Ratios: median (minimum to maximum)."
    )
