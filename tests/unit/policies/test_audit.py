"""The audit on planted cases: liars are found, honest participants are never accused."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, binomtest
from sklearn.metrics import r2_score

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.runtime import compute
from coopt_fl.data import open_source, shared_set
from coopt_fl.data.blocks import make_blocks, make_units
from coopt_fl.policies.audit import inconsistent
from coopt_fl.policies.evidence import (
    Agreement,
    Comparison,
    Expected,
    Judged,
    Profile,
    agreement,
    judge,
    spread,
)
from coopt_fl.policies.spreads import odd_spread
from coopt_fl.priors import load_prior
from coopt_fl.targets import fit_alignment, held_out, represent

Targets = NDArray[np.floating]
Lie = Callable[[np.random.Generator, Targets], Targets]

SHARED, DIM = 80, 16


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with compute(1):
        yield


@dataclass(frozen=True, eq=False)
class Run:
    """A simulated run: expected and actual targets (N, n) by participant, blocks, units, owners."""

    expected: dict[str, Expected]
    targets: dict[str, Targets]
    blocks: list[NDArray[np.int64]]
    units: list[NDArray[np.int64]]
    owners: list[str]

    def answers(self, lies: Mapping[str, Targets] | None = None) -> list[Targets]:
        """Return the answers to all units; ``lies`` replaces the targets of some participants."""
        said = {**self.targets, **(lies or {})}
        return [said[o][unit] for o, unit in zip(self.owners, self.units, strict=True)]

    def comparisons(self, answers: list[Targets]) -> list[Comparison]:
        """Return a comparison for each id that two participants answered."""
        home = {id: k for k, block in enumerate(self.blocks) for id in block.tolist()}
        found = []
        for unit, ids in enumerate(self.units):
            for row, id in enumerate(ids.tolist()):
                block, owner, auditor = home[id], self.owners[home[id]], self.owners[unit]
                if owner != auditor:
                    there = np.searchsorted(self.units[block], id)
                    ours, theirs = answers[block][there][None], answers[unit][row][None]
                    found.append(Comparison(owner, block, auditor, unit, ours, theirs))
        return found

    def judged(self, lies: Mapping[str, Targets] | None = None) -> Judged:
        return judge(self.expected, self.comparisons(self.answers(lies)))


def play(features: dict[str, Targets], seed: int, fraction: float, rows: int, size: int) -> Run:
    """Align all participants to the first one's first principal components, as a run would."""
    names, total = list(features), len(next(iter(features.values())))
    shared = shared_set(np.arange(total), size, seed)
    first = features[names[0]] - features[names[0]].mean(axis=0)
    projection = np.linalg.svd(first[:200], full_matrices=False)[2][:DIM].T
    projection /= (first @ projection).std()
    expected, targets = {}, {}
    for name, x in features.items():
        wanted = first[shared] @ projection
        fitted, heldout, everywhere = wanted, wanted, first @ projection
        if name != names[0]:
            alignment = fit_alignment(x[shared], wanted, "ridge", seed)
            everywhere = x @ alignment.weight + alignment.bias
            fitted, heldout = everywhere[shared], held_out(x[shared], wanted, "ridge", seed).targets
        expected[name] = Expected(
            fitted, heldout, r2_score(wanted, heldout, multioutput="variance_weighted")
        )
        targets[name] = everywhere.astype(np.float16)
    blocks = make_blocks(np.arange(total), rows, seed)
    order = np.random.default_rng(seed).permutation(len(names))
    owners = [names[order[k % len(names)]] for k in range(len(blocks))]
    return Run(expected, targets, blocks, make_units(blocks, fraction, seed), owners)


@cache
def world(
    names: str = "abcd", seed: int = 0, noise: float = 0.4, fraction: float = 0.1, rows: int = 100
) -> Run:
    """Return a run of priors that see common causes through noise; those in capitals see none."""
    rng = np.random.default_rng(seed)
    causes = rng.standard_normal((1200, 12)) * np.linspace(2, 0.5, 12)
    features = {}
    for name in names:
        seen = causes @ rng.standard_normal((12, 30)) / 12**0.5
        unseen = rng.standard_normal((1200, 30))
        features[name] = unseen if name.isupper() else seen + noise * unseen
    return play(features, seed, fraction, rows, SHARED)


@cache
def digits(size: int, seed: int) -> Run:
    """Return a run of untrained maps of the digits, which agree closely or hardly."""
    return play(digit_features(), seed, 0.1, 64, size)


@cache
def digit_features() -> dict[str, Targets]:
    source, asked = open_source(DataConfig(), "train"), {}
    for width in (20, 48, 100):
        prior = load_prior(f"trivial:{width}")
        options = {"batch_size": 256, "precision": "float32", "on_error": "raise"}
        asked[f"trivial{width}"] = represent(prior, source, source.ids, **options).values
    rng = np.random.default_rng(0)
    asked["veiled"] = asked["trivial48"] + rng.standard_normal((len(source.ids), 48))
    return {name: x.astype(np.float32) for name, x in asked.items()}


def mixed(rng: np.random.Generator, y: Targets) -> Targets:
    return y[rng.permutation(len(y))]


def turned(rng: np.random.Generator, y: Targets) -> Targets:
    return y @ np.linalg.qr(rng.standard_normal((y.shape[1], y.shape[1])))[0]


LIES: dict[str, Lie] = {
    "noise": lambda rng, y: rng.standard_normal(y.shape) * y.std(),
    "targets of other samples": mixed,
    "rotated": turned,
    "sign flipped": lambda rng, y: -y,
    "constant, off the mean": lambda rng, y: np.repeat(y[:1], len(y), axis=0),
    "ten values": lambda rng, y: y[rng.integers(0, 10, len(y))],
    "on a line": lambda rng, y: np.outer(rng.standard_normal(len(y)), y[0]),
    "half of them noise": lambda rng, y: np.where(rng.random((len(y), 1)) < 0.5, mixed(rng, y), y),
}


# What a participant says of itself


def test_float16_is_consistent_and_one_wrong_row_is_not() -> None:
    run = world()
    exact = run.expected["b"].fitted
    scale = spread(exact)
    assert inconsistent(exact.astype(np.float16), exact, scale) is None
    for wrong in (np.roll(exact[0], 1), 1.5 * exact[0], np.full(DIM, np.nan)):
        said = exact.copy()
        said[3] = wrong
        assert "1 of 80 targets differ" in str(inconsistent(said, exact, scale))


def test_a_reduced_precision_may_move_targets_further() -> None:
    exact = world().expected["b"].fitted
    step = np.random.default_rng(0).standard_normal(exact.shape)
    step *= 0.3 * spread(exact) / np.linalg.norm(step, axis=1, keepdims=True)
    assert inconsistent(exact + step, exact, spread(exact)) is not None
    assert inconsistent(exact + step, exact, spread(exact), "bfloat16") is None
    assert inconsistent(mixed(np.random.default_rng(0), exact), exact, spread(exact), "bfloat16")


def test_constant_targets_are_consistent_only_if_expected() -> None:
    flat = np.full((5, DIM), 0.1)
    assert inconsistent(flat.astype(np.float16), flat, 0.0) is None
    assert inconsistent(flat + 0.01, flat, 0.0) is not None


# What others say


@pytest.mark.whole
def test_nobody_honest_is_ever_accused() -> None:
    """100 seeds with 2 to 6 participants, whose priors agree well, badly and not at all."""
    for seed in range(100):
        if seed % 5 > 2:
            run = digits((25, 60, 250)[seed % 3], seed)
        else:
            run = world(("abcdef", "abC", "aBcD", "ab")[seed % 4], seed, (0.4, 1.5)[seed % 2])
        assert run.judged() == Judged({}, [])
        for k, owner in enumerate(run.owners):
            unit = run.targets[owner][run.units[k]]
            assert odd_spread(unit, run.expected[owner]) is None


@pytest.mark.parametrize("lie", sorted(LIES))
@pytest.mark.parametrize("liar", ["a", "c"])  # "a" is the reference
def test_a_liar_is_rejected_and_nobody_else(lie: str, liar: str) -> None:
    run, rng = world(), np.random.default_rng(1)
    judgement = run.judged({liar: LIES[lie](rng, run.targets[liar].astype(np.float32))})
    assert set(judgement.rejected) == {liar}
    assert judgement.undecided == []
    evidence = judgement.rejected[liar]
    assert evidence.odds >= evidence.limit
    assert evidence.sentence.startswith(f"{liar} disagrees with")
    assert set(evidence.witnesses) == set("abcd") - {liar}


@pytest.mark.parametrize("replayed", ["of other samples", "of the same samples"])
def test_replaying_another_matters_only_for_other_samples(replayed: str) -> None:
    run, rng = world(), np.random.default_rng(1)
    said = run.targets["a"] if "same" in replayed else mixed(rng, run.targets["a"])
    assert set(run.judged({"b": said}).rejected) == (set() if "same" in replayed else {"b"})


def test_a_block_in_the_wrong_order_is_enough() -> None:
    """The block is a tenth of the liar's answers, which on the whole agree with the others."""
    run, rng = world(rows=60, fraction=0.3), np.random.default_rng(1)
    answers = run.answers()
    block = run.owners.index("c")
    answers[block] = mixed(rng, answers[block])
    judgement = judge(run.expected, run.comparisons(answers))
    assert set(judgement.rejected) == {"c"}
    assert judgement.rejected["c"].blocks == [block]
    assert f"asked for with block {block}" in judgement.rejected["c"].sentence


def test_who_lies_only_as_an_auditor_is_rejected() -> None:
    run, rng = world(fraction=0.3), np.random.default_rng(1)
    answers, lied = run.answers(), run.answers({"c": mixed(rng, run.targets["c"])})
    for unit, owner in enumerate(run.owners):
        if owner == "c":
            own = np.isin(run.units[unit], run.blocks[unit])
            answers[unit] = np.where(own[:, None], answers[unit], lied[unit])
    assert set(judge(run.expected, run.comparisons(answers)).rejected) == {"c"}


def test_those_who_disagree_only_with_liars_are_spared() -> None:
    run, rng = world("abcde", fraction=0.3), np.random.default_rng(1)
    apart = {name: mixed(rng, run.targets[name]) for name in "de"}
    together = {name: turned(np.random.default_rng(1), run.targets[name]) for name in "de"}
    for lies in (apart, together):
        judgement = run.judged(lies)
        assert set(judgement.rejected) == {"d", "e"}
        assert judgement.undecided == []


def test_a_tie_is_undecided() -> None:
    rng = np.random.default_rng
    run = world("abcd")
    judgement = run.judged({name: turned(rng(1), run.targets[name]) for name in "cd"})
    assert judgement.rejected == {}
    assert [sentence.split(" on ")[0] for sentence in judgement.undecided] == [
        f"{one} disagrees with {other}" for one in "ab" for other in "cd"
    ]
    three = world("abc")
    judgement = three.judged({name: mixed(rng(ord(name)), three.targets[name]) for name in "bc"})
    assert judgement.rejected == {}
    assert len(judgement.undecided) == 3


def test_two_participants_are_undecidable() -> None:
    run = world("ab")
    judgement = run.judged({"b": -run.targets["b"]})
    assert judgement.rejected == {}
    (sentence,) = judgement.undecided
    assert "a disagrees with b" in sentence
    assert "nobody can tell who is right" in sentence


def test_priors_that_agree_with_nobody_neither_accuse_nor_are_accused() -> None:
    run, rng = world("aBCD"), np.random.default_rng(1)
    assert run.judged({"B": mixed(rng, run.targets["B"])}) == Judged({}, [])
    assert run.judged({"a": mixed(rng, run.targets["a"])}) == Judged({}, [])


def test_witnesses_without_knowledge_do_not_count() -> None:
    """Only two of the four others have knowledge; the majority is counted among these two."""
    run = world("abcDE", fraction=0.3)
    mixed_up = mixed(np.random.default_rng(1), run.targets["a"])
    assert set(run.judged({"a": mixed_up}).rejected) == {"a"}


def test_one_witness_is_no_majority() -> None:
    """The middle participant agrees with each of the others, which have nothing in common."""
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, 1200, 8))
    features = {"middle": np.hstack([left, right]), "left": left, "right": right}
    run = play(features, 0, 0.3, 100, SHARED)
    judgement = run.judged({"left": -run.targets["left"]})
    assert judgement.rejected == {}
    (sentence,) = judgement.undecided
    assert sentence.startswith("left disagrees with middle on")


def test_who_shrank_to_the_mean_is_not_accused_of_rounding() -> None:
    run = world("abcd")
    flat = np.full((1200, DIM), 0.1)
    expected = run.expected | {"d": Expected(flat[:SHARED], run.expected["d"].heldout, 0.0)}
    comparisons = run.comparisons(run.answers({"d": flat.astype(np.float16)}))
    assert judge(expected, comparisons) == Judged({}, [])


def test_scaling_is_left_to_the_spread() -> None:
    run = world()
    assert run.judged({"b": 2 * run.targets["b"]}) == Judged({}, [])


def test_without_comparisons_nobody_is_judged() -> None:
    assert judge(world().expected, []) == Judged({}, [])
    assert judge({}, []) == Judged({}, [])


def test_strangers_and_oneself_are_no_witnesses() -> None:
    run = world("abcd")
    lied = run.comparisons(run.answers({"d": -run.targets["d"]}))
    known = {name: one for name, one in run.expected.items() if name != "d"}
    assert judge(known, lied) == Judged({}, [])
    wrong = -run.targets["a"][:50]
    alone = [Comparison("a", 0, "a", 1, run.targets["a"][:50], wrong)] * 9
    assert judge(run.expected, alone) == Judged({}, [])


@settings(max_examples=10)
@given(seed=st.integers(0, 99), lie=st.sampled_from(sorted(LIES)), ties=st.booleans())
def test_order_and_names_do_not_matter(seed: int, lie: str, ties: bool) -> None:
    run, rng = world(), np.random.default_rng(seed)
    liars = "bd" if ties else "b"
    said = {name: LIES[lie](rng, run.targets[name].astype(np.float32)) for name in liars}
    found = run.comparisons(run.answers(said))
    verdict = judge(run.expected, found)
    shuffled = [found[k] for k in rng.permutation(len(found))]
    backwards = dict(reversed(run.expected.items()))
    assert judge(backwards, shuffled) == verdict
    new = dict(zip("abcd", rng.permutation(list("wxyz")).tolist(), strict=True))
    renamed = [
        Comparison(new[one.owner], one.block, new[one.auditor], one.unit, one.ours, one.theirs)
        for one in found
    ]
    other = judge({new[name]: one for name, one in run.expected.items()}, renamed)
    assert set(other.rejected) == {new[name] for name in verdict.rejected}
    assert len(other.undecided) == len(verdict.undecided)


@settings(max_examples=40)
@given(
    data=st.data(),
    shared=st.integers(4, 30),
    dim=st.integers(1, 4),
    scale=st.sampled_from([0.0, 1e-6, 1.0, 6e4]),
)
def test_never_raises_and_evidence_is_json(
    data: st.DataObject, shared: int, dim: int, scale: float
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))

    def some(rows: int) -> Targets:
        kind = data.draw(st.sampled_from(["normal", "constant", "integers"]))
        if kind == "constant":
            return np.full((rows, dim), scale, np.float16)
        drawn = (
            rng.standard_normal((rows, dim))
            if kind == "normal"
            else rng.integers(-1, 2, (rows, dim))
        )
        return np.clip(scale * drawn, -6e4, 6e4).astype(np.float16)

    expected = {name: Expected(some(shared), some(shared), rng.random()) for name in "abc"}
    comparisons = [
        Comparison(*pair, some(rows), some(rows))
        for pair in (("a", 0, "b", 1), ("b", 1, "c", 2), ("c", 2, "a", 0), ("a", 0, "c", 2))
        for rows in (0, 1, 40)
    ]
    judgement = judge(expected, comparisons)
    json.dumps(asdict(judgement), allow_nan=False)
    for known in expected.values():
        said = some(shared)
        assert isinstance(odd_spread(said, known), str | None)
        assert isinstance(inconsistent(said, known.fitted, spread(known.fitted)), str | None)


# What the odds are made of


def test_usual_is_wilsons_limit_and_chance_that_of_wrong_samples() -> None:
    run = world(noise=0.8)
    one, other = Profile(run.expected["b"]), Profile(run.expected["c"])
    usual = agreement(one, other)
    cosines = one.shared @ other.shared.T
    far = int((np.diagonal(cosines) < usual.threshold).sum())
    level = 2 * 0.9986501019683699 - 1  # three standard deviations
    wilson = binomtest(far, SHARED).proportion_ci(level, method="wilson").high
    assert usual.usual == pytest.approx(wilson)
    wrong = cosines[~np.eye(SHARED, dtype=bool)]
    assert usual.chance == pytest.approx((wrong < usual.threshold).mean(), abs=0.1)
    assert np.diagonal(cosines).mean() > usual.threshold > wrong.mean()


@settings(max_examples=50)
@given(usual=st.floats(0.02, 0.6), chance=st.floats(0.02, 1.0), rows=st.integers(1, 60))
def test_chance_exceeds_the_odds_as_seldom_as_they_say(
    usual: float, chance: float, rows: int
) -> None:
    """Markov: if the mean of exp(odds) is 1, exp(odds) exceeds x with probability 1/x at most."""
    assume(chance <= usual or chance > 1.001 * usual)  # else they differ in rounding alone
    pair = Agreement(0.5, usual, chance)
    odds = np.array([pair.odds(far, rows) for far in range(rows + 1)])
    assert np.exp(odds) @ binom.pmf(np.arange(rows + 1), rows, usual) == pytest.approx(1)
    assert np.exp(odds) @ binom.pmf(np.arange(rows + 1), rows, usual / 2) < 1 + 1e-9
    if chance > usual:
        assert (np.diff(odds) > 0).all()
        assert odds[0] < 0 < odds[-1]
    else:
        assert (odds == 0).all()
