"""Liars of the audit experiment: on which samples they lie, and on which they are honest."""

import numpy as np
import pytest

from coopt_fl.data.regions import regions
from coopt_fl.targets.projection import consensus_targets
from experiments.audit import accused, asked_twice, contradicted, inspected
from experiments.lab import Lab
from experiments.played import LIES, PERMUTED, SWAPPED, Played, play, play_by_competence, tell
from experiments.scales import SCALES

(STUDY,) = SCALES["smoke"].values()
LIAR = "trained1"


@pytest.fixture(scope="module")
def run() -> Played:
    return play(Lab(STUDY), 0, "mixed", 64, 16, "best", "ridge", 0.5)


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
    honest, everyone = run.answers(), list(run.expected)
    assert inspected(run, everyone, honest) == {"itself": set(), "spread": set()}
    assert not contradicted(run, asked_twice(run, honest))
    flat = tell("on a line", run, LIAR, np.random.default_rng(0))
    assert inspected(run, everyone, flat) == {"itself": set(), "spread": {LIAR}}
    assert inspected(run, [name for name in everyone if name != LIAR], flat)["spread"] == set()
    disordered = tell("permuted within each block", run, LIAR, np.random.default_rng(0))
    assert contradicted(run, asked_twice(run, disordered)) == {LIAR}
    plan = run.agreed.plan
    for index in plan.blocks_of(LIAR):
        honest[index][np.isin(plan.units[index], plan.shared)] += 1
    assert inspected(run, everyone, honest)["itself"] == {LIAR}, "it knows what it said of S"


def test_comparisons_are_of_the_same_samples(run: Played) -> None:
    plan = run.agreed.plan
    ids = run.answers({name: np.arange(320)[:, None] for name in run.honest})
    twice = asked_twice(run, ids)
    for one in twice:
        np.testing.assert_array_equal(one.ours, one.theirs)
        assert one.ours[0] in plan.blocks[one.block] and one.ours[0] in plan.audit_ids(one.unit)
        assert (one.owner, one.auditor) == (run.owner(one.block), run.owner(one.unit))
    assert {True, False} == {one.owner == one.auditor for one in twice}
    assert len(twice) == sum(len(plan.audit_ids(unit)) for unit in range(len(plan.units)))


@pytest.mark.parametrize("consensus", ["pca", "gcca"])
def test_by_competence_blocks_are_of_one_region_and_liars_alone_are_accused(consensus: str) -> None:
    lab = Lab(STUDY)
    run = play_by_competence(lab, 0, "mixed", 64, 16, 0.5, consensus)
    plan, region = run.agreed.plan, regions(lab.source, lab.shared(64, 0), 0, STUDY.data)
    assert all(len(set(region[ids])) == 1 for ids in plan.blocks)
    assert len(np.unique(region)) > 1
    most = max(len(blocks) for blocks in plan.shards().values())
    assert most <= np.ceil(len(plan.blocks) / 2), "twice a quarter"
    everyone = list(run.expected)
    voters = [run.agreed.on_s[name] for name in run.agreed.election.accepted]
    wanted = consensus_targets(voters, 16, consensus)
    np.testing.assert_allclose(run.agreed.shared_targets, wanted, atol=1e-4)
    flagged, judged, _ = accused(run, everyone, run.answers())
    assert not set().union(*flagged.values()) and not judged.rejected
    liar = next(name for name in everyone if len(plan.blocks_of(name)) > 1)
    told = tell("permuted within each block", run, liar, np.random.default_rng(0))
    assert accused(run, everyone, told)[0]["itself"] == {liar}
