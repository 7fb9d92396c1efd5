"""What changed since an earlier run."""

from collections.abc import Iterator
from typing import Any

from coopt_fl.bench.case import Row, Spread
from coopt_fl.bench.results import Results


def compare(before: Results, after: Results) -> dict[str, Any]:
    """Return what changed: rows that both have, and what makes them less comparable.

    A change is ``better`` or ``worse`` only where the two spreads do not overlap.
    """
    older = {row["name"]: row for row in before["rows"]}
    return {
        "warnings": list(_differences(before, after)),
        "rows": [_change(older[row["name"]], row) for row in after["rows"] if row["name"] in older],
    }


def _differences(before: Results, after: Results) -> Iterator[str]:
    """Say where hardware and versions differ."""
    for group in ("hardware", "versions"):
        old, new = before[group], after[group]
        for key in sorted(old | new):
            if old.get(key) != new.get(key):
                yield f"{group}: {key} was {old.get(key)}, is {new.get(key)}"


def _change(old: Row, new: Row) -> dict[str, Any]:
    verdict, difference = "not measured in both", None
    if old["figure"] and new["figure"]:
        difference = round(new["figure"]["median"] - old["figure"]["median"], 5)
        verdict = _verdict(old["figure"], new["figure"], _rising(new))
    return {
        "name": new["name"],
        "before": old["figure"],
        "after": new["figure"],
        "difference": difference,
        "verdict": verdict,
    }


def _verdict(old: Spread, new: Spread, rising: bool) -> str:
    if old["min"] <= new["max"] and new["min"] <= old["max"]:
        return "within the spread"
    return "better" if (new["median"] > old["median"]) == rising else "worse"


def _rising(row: Row) -> bool:
    """Whether more is better; where nothing is demanded, it is."""
    return row["reach"] is None or bool(row["reach"]["at_least"])
