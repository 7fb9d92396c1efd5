"""Reaches, reasons for missing figures, and alternating measurements."""

import json

import pytest

from coopt_fl.bench.measure import SKIPPED, Case, Reach, in_turn, spread, timed


def figure(low: float, median: float, high: float) -> dict[str, float]:
    return {"min": low, "median": median, "max": high}


@pytest.mark.parametrize(
    ("at_least", "median", "met"),
    [(True, 0.9, True), (True, 0.899, False), (False, 0.9, True), (False, 0.901, False)],
)
def test_the_median_decides(at_least: bool, median: float, met: bool) -> None:
    reach = Reach(0.9, at_least)
    assert reach.met(figure(0.0, median, 9.0)) is met
    row = Case("a", "path", "roofline", reach).measured(figure(0.0, median, 9.0), rows=3)
    assert row["reached"] is met
    assert (row["skipped"], row["details"]) == (None, {"rows": 3})


def test_where_nothing_is_demanded_nothing_is_reached() -> None:
    assert Case("a", "path", "roofline").measured(figure(1, 2, 3))["reached"] is None


@pytest.mark.parametrize("reason", SKIPPED)
def test_a_skipped_row_has_no_figure_but_a_reason(reason: str) -> None:
    row = Case("a", "path", "roofline", Reach(1.0)).skipped(reason)
    assert (row["skipped"], row["figure"], row["reached"]) == (reason, None, None)
    assert json.loads(json.dumps(row)) == row


def test_an_unknown_reason_is_refused() -> None:
    with pytest.raises(AssertionError):
        Case("a", "path", "roofline").skipped("weather")


def test_both_warm_up_and_then_take_turns() -> None:
    calls = []

    def work() -> float:
        calls.append("work")
        return float(len(calls))

    def roofline() -> float:
        calls.append("roofline")
        return float(len(calls))

    ours, theirs = in_turn(work, roofline, 2)
    assert (list(ours), list(theirs)) == ([3.0, 5.0], [4.0, 6.0])
    assert calls == ["work", "roofline"] * 3


def test_spread_is_minimum_median_and_maximum() -> None:
    assert spread([4.0, 1.0, 2.0]) == {"min": 1.0, "median": 2.0, "max": 4.0}
    assert spread([1.0, 2.0])["median"] == 1.5
    assert spread([1 / 3])["min"] == 0.33333
    assert spread([0.000123456789])["max"] == 0.00012346


def test_work_is_done_each_time_it_is_timed() -> None:
    done = []
    seconds = timed(lambda: done.append(1))
    assert seconds() > 0 and seconds() > 0
    assert len(done) == 2
