"""Liars of the audit's experiment: about what they lie, and about what they do not."""

import numpy as np
import pytest

from experiments.audit import compared, contradicts, spreads_oddly
from experiments.lab import Lab
from experiments.lies import LIES, PERMUTED, SWAPPED, tell
from experiments.played import Played, play
from experiments.scales import SCALES

(STUDY,) = SCALES["smoke"].values()
LIAR = "trained1"


@pytest.fixture(scope="module")
def run() -> Played:
    return play(Lab(STUDY), "mixed", 64, 16, "best", "ridge", 0.5, 0)


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie != SWAPPED])
def test_a_liar_tells_the_truth_about_the_shared_set_only(run: Played, lie: str) -> None:
    honest, plan = run.answers(), run.agreed.plan
    answers = tell(lie, run, LIAR, np.random.default_rng(0))
    changed = 0
    for index, unit in enumerate(plan.units):
        shared = np.isin(unit, plan.shared)
        differs = (answers[index] != honest[index]).any(axis=1)
        assert not differs[shared].any()
        assert run.owner(index) == LIAR or not differs.any(), "only the liar lies"
        changed += differs.any()
    blocks = len(plan.blocks_of(LIAR))
    assert changed == (1 if PERMUTED.get(lie) == 1 else blocks)
    for before, after in zip(honest, run.answers(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_honest_fail_no_test_and_planted_lies_do(run: Played) -> None:
    for name in run.expected:
        assert not contradicts(run, name, run.answers())
        assert not spreads_oddly(run, name, run.answers())
    wide = tell("scaled by 2", run, LIAR, np.random.default_rng(0))
    assert spreads_oddly(run, LIAR, wide)
    disordered = tell("permuted within each block", run, LIAR, np.random.default_rng(0))
    assert contradicts(run, LIAR, disordered)


def test_comparisons_are_of_the_same_samples(run: Played) -> None:
    plan, said = run.agreed.plan, run.answers()
    ids = run.answers({name: np.arange(320)[:, None] for name in run.honest})
    by_value, by_id = compared(run, said), compared(run, ids)
    assert by_value and len(by_value) == len(by_id)
    for one in by_id:
        np.testing.assert_array_equal(one.ours, one.theirs)
        assert set(one.ours[:, 0]) <= set(plan.blocks[one.block]) & set(plan.units[one.unit])
        assert one.owner != one.auditor
    audited = sum(len(one.ours) for one in by_id)
    across = [
        run.owner(block) != run.owner(unit)
        for unit in range(len(plan.units))
        for id in plan.audit_ids(unit)
        for block in range(len(plan.blocks))
        if id in plan.blocks[block]
    ]
    assert audited == sum(across)
