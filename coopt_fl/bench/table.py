"""The results for people."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coopt_fl.bench.case import SKIPPED, Row, Spread
from coopt_fl.report import console


def rendered(found: dict[str, Any]) -> RenderableType:
    """Render results, and what changed if they were compared."""
    parts: list[RenderableType] = [_results(found["rows"]), Text(_origin(found))]
    if found.get("comparison"):
        parts.append(_changes(found["comparison"]))
        parts += [Text(f"note: {one}", style="yellow") for one in found["comparison"]["warnings"]]
    return Group(*parts)


def figure(spread: Spread, unit: str) -> str:
    """Return a spread as ``median (min to max)``."""
    low, middle, high = (_number(spread[key]) for key in ("min", "median", "max"))
    return f"{middle} ({low} to {high}){' ' + unit if unit else ''}"


def reach(row: Row) -> str:
    """Return what a row should reach."""
    if row["reach"] is None:
        return ""
    return f"{'>=' if row['reach']['at_least'] else '<='} {row['reach']['bound']:g}"


def line(row: Row) -> str:
    """Return a row as one line, for those who wait."""
    known = figure(row["figure"], row["unit"]) if row["figure"] else _reason(row)
    return f"{row['name']}: {known}"


def _results(rows: list[Row]) -> Table:
    shown = console.table("Speed", "path", "roofline", "ratio", "reach", "reached")
    for row in rows:
        known = figure(row["figure"], row["unit"]) if row["figure"] else _reason(row)
        console.row(shown, row["path"], row["roofline"], known, reach(row), _reached(row))
    return shown


def _changes(comparison: dict[str, Any]) -> Table:
    shown = console.table(
        "Since the earlier run", "what", "before", "after", "difference", "verdict"
    )
    for row in comparison["rows"]:
        known = [figure(one, "") if one else "" for one in (row["before"], row["after"])]
        difference = "" if row["difference"] is None else f"{row['difference']:+.4g}"
        console.row(shown, row["name"], *known, difference, row["verdict"])
    return shown


def _reached(row: Row) -> str:
    return {True: "yes", False: "NO", None: ""}[row["reached"]]


def _reason(row: Row) -> str:
    return f"skipped: {SKIPPED[row['skipped']]}"


def _origin(found: dict[str, Any]) -> str:
    hardware, versions = found["hardware"], found["versions"]
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    return (
        f"{hardware['cores']} cores ({hardware['processor']}), {gpus}; torch {versions['torch']}; "
        f"{found['date']}. Ratios: median (minimum to maximum)."
    )


def _number(value: float) -> str:
    return f"{value:.3g}"
