"""When a figure is good enough, and what is said of one that there is not."""

import json

import pytest

from coopt_fl.bench.case import SKIPPED, Case, Reach


def spread(low: float, median: float, high: float) -> dict[str, float]:
    return {"min": low, "median": median, "max": high}


@pytest.mark.parametrize(
    ("at_least", "median", "met"),
    [(True, 0.9, True), (True, 0.899, False), (False, 0.9, True), (False, 0.901, False)],
)
def test_the_median_decides(at_least: bool, median: float, met: bool) -> None:
    reach = Reach(0.9, at_least)
    assert reach.met(spread(0.0, median, 9.0)) is met
    row = Case("a", "path", "roofline", reach).measured(spread(0.0, median, 9.0), rows=3)
    assert row["reached"] is met
    assert (row["skipped"], row["details"]) == (None, {"rows": 3})


def test_where_nothing_is_demanded_nothing_is_reached() -> None:
    assert Case("a", "path", "roofline").measured(spread(1, 2, 3))["reached"] is None


@pytest.mark.parametrize("reason", SKIPPED)
def test_a_skipped_row_has_no_figure_but_a_reason(reason: str) -> None:
    row = Case("a", "path", "roofline", Reach(1.0)).skipped(reason)
    assert (row["skipped"], row["figure"], row["reached"]) == (reason, None, None)
    assert json.loads(json.dumps(row)) == row


def test_an_unknown_reason_is_refused() -> None:
    with pytest.raises(AssertionError):
        Case("a", "path", "roofline").skipped("weather")
