"""Comparing results: what counts as a change, and which files are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from coopt_fl.bench.measure import Case, Reach
from coopt_fl.bench.suite import FORMAT, compare, read, results_of
from coopt_fl.core.errors import ConfigError


def results(*figures: tuple[str, float, float, float], at_least: bool = True) -> dict[str, Any]:
    rows = [
        Case(name, "p", "r", Reach(0.5, at_least)).measured(
            {"min": low, "median": median, "max": high}
        )
        for name, low, median, high in figures
    ]
    return results_of(["coopt bench"]) | {"rows": rows}


def verdicts(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [row["verdict"] for row in compare(before, after)["rows"]]


@pytest.mark.parametrize(
    ("low", "median", "high", "verdict"),
    [
        (0.71, 0.8, 0.9, "better"),
        (0.70, 0.8, 0.9, "within the spread"),
        (0.1, 0.3, 0.49, "worse"),
        (0.1, 0.3, 0.50, "within the spread"),
        (0.55, 0.6, 0.65, "within the spread"),
        (0.1, 0.6, 0.99, "within the spread"),
    ],
)
def test_only_spreads_that_do_not_overlap_are_a_change(
    low: float, median: float, high: float, verdict: str
) -> None:
    before = results(("a", 0.5, 0.6, 0.7))
    after = results(("a", low, median, high))
    assert verdicts(before, after) == [verdict]
    (row,) = compare(before, after)["rows"]
    assert row["difference"] == pytest.approx(median - 0.6)


def test_less_is_better_where_the_reach_is_a_limit() -> None:
    before = results(("a", 0.5, 0.6, 0.7), at_least=False)
    after = results(("a", 0.1, 0.2, 0.3), at_least=False)
    assert verdicts(before, after) == ["better"]
    assert verdicts(after, before) == ["worse"]


def test_rows_of_one_run_alone_are_left_out_and_skipped_ones_are_named() -> None:
    before = results(("a", 1, 1, 1), ("old", 1, 1, 1), ("c", 1, 1, 1))
    after = results(("new", 1, 1, 1), ("a", 1, 1, 1))
    after["rows"].append(Case("c", "p", "r").skipped("no-gpu"))
    found = compare(before, after)
    assert [row["name"] for row in found["rows"]] == ["a", "c"]
    assert [row["verdict"] for row in found["rows"]] == [
        "within the spread",
        "not measured in both",
    ]
    assert found["warnings"] == []


def test_other_hardware_and_versions_are_named() -> None:
    before, after = results(), results()
    before["hardware"] = {**before["hardware"], "cores": 96}
    before["versions"] = {**before["versions"], "torch": "1.0", "gone": "3"}
    said = compare(before, after)["warnings"]
    assert [one.partition(" was")[0] for one in said] == [
        "hardware: cores",
        "versions: gone",
        "versions: torch",
    ]
    assert "was 96" in said[0] and "was 1.0" in said[2]


def test_results_survive_the_file(tmp_path: Path) -> None:
    kept = results(("a", 0.5, 0.6, 0.7))
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    assert read(tmp_path / "kept.json") == kept


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ("no json", "cannot be read"),
        ("[]", "is of format None"),
        (json.dumps({"format": FORMAT + 1}), f"is of format {FORMAT + 1}, not {FORMAT}"),
        (json.dumps({"results": {}}), "is of format None"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "kept.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=says):
        read(path)
