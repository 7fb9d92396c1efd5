"""Assignment by competence, against planted experts and a search over all assignments."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt_fl.policies.assignment import Member
from coopt_fl.policies.competence import by_competence, mean_errors


def members(
    errors: list[list[float]], weights: list[float] | None = None, most: float = 2.0
) -> list[Member]:
    each = zip("abcdefgh", weights or [1.0] * len(errors), errors, strict=False)
    return [Member(name, weight, errors=np.array(some), most=most) for name, weight, some in each]


def test_each_region_goes_to_who_knows_it() -> None:
    regions = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    expert = [[1.0 if region == knows else 5.0 for region in regions] for knows in (2, 0, 1)]
    owners = by_competence(range(9), members(expert))
    assert owners == list("bbbcccaaa")
    assert by_competence([8, 0, 4], members(expert)) == ["a", "b", "c"]  # some blocks of a run


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1.0, [10, 10, 10, 10]),
        (2.0, [20, 20, 0, 0]),
        (3.0, [30, 10, 0, 0]),
        (math.inf, [40, 0, 0, 0]),
    ],
)
def test_nobody_gets_more_than_so_many_times_its_share(most: float, expected: list[int]) -> None:
    best = members([[0.0] * 40, *([[1.0 + k] * 40 for k in range(3)])], most=most)
    owners = by_competence(range(40), best)
    assert [owners.count(name) for name in "abcd"] == expected


def test_shares_are_those_by_weight() -> None:
    weighed = members([[0.0] * 40, *([[1.0 + k] * 40 for k in range(3)])], [1, 5, 2, 2])
    owners = by_competence(range(40), weighed)
    assert [owners.count(name) for name in "abcd"] == [8, 32, 0, 0]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_sum_of_errors_is_the_least_possible(data: st.DataObject) -> None:
    people, blocks = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    regions = data.draw(st.lists(st.integers(0, 2), min_size=blocks, max_size=blocks))
    some = st.lists(st.integers(0, 9), min_size=3, max_size=3)
    errors = data.draw(st.lists(some, min_size=people, max_size=people))
    scale = data.draw(st.sampled_from([1e-9, 1.0, 1e6]))
    each = members([[scale * some[region] for region in regions] for some in errors])
    owners = by_competence(range(blocks), each)
    most = np.ceil(min(2 / people, 1) * blocks)
    allowed = (
        told
        for told in itertools.product("abc"[:people], repeat=blocks)
        if all(told.count(name) <= most for name in "abc")
    )

    def total(told: tuple[str, ...]) -> float:
        return sum(errors["abc".index(who)][regions[block]] for block, who in enumerate(told))

    assert tuple(owners) in itertools.product("abc"[:people], repeat=blocks)
    assert all(owners.count(name) <= most for name in owners)
    assert total(tuple(owners)) == pytest.approx(min(map(total, allowed)))


def test_who_is_not_judged_yet_counts_as_the_worst() -> None:
    known = members([[1.0, 1.0], [2.0, 2.0]])
    owners = by_competence([0, 1], [Member("new"), *known])
    assert "new" not in owners
    assert by_competence([0, 1], [Member("new")]) == ["new", "new"]


def test_regions_with_few_samples_are_judged_by_all_samples_too() -> None:
    found = mean_errors(np.array([1.0, 3.0, 8.0]), np.array([0, 0, 2]), 4)
    assert found == pytest.approx([(1 + 3 + 4) / 3, 4.0, (8 + 4) / 2, 4.0])
