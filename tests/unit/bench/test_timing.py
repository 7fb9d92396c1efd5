"""Turns are taken; no time is asserted."""

from coopt_fl.bench.timing import in_turn, spread, timed


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
