"""The platform's constructor is its policy: other decisions are its arguments."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coopt_fl
from coopt_fl.federation import protocol
from coopt_fl.optimized.verify import verify
from coopt_fl.policies.assignment import Member
from coopt_fl.policies.audit import Answer, Audit, Judgement, Known, Verdict
from coopt_fl.policies.evidence import Expected
from coopt_fl.policies.reference import Election, elect
from coopt_fl.targets import HeldOut, Recipe, held_out
from tests.flower.grid import FakeGrid, run_platform, tiny

NAMES = ["alpha", "beta", "gamma"]


def highest_r2(features: Mapping[str, np.ndarray], wanted: str, dim: int, seed: int) -> Election:
    """Elect the participant whose features the others' predict best."""

    def predicted(name: str) -> float:
        others = [x for other, x in features.items() if other != name]
        return float(np.mean([held_out(x, features[name]).r2 for x in others]))

    found = elect(features, "best", dim, seed)
    best = max(found.accepted, key=predicted)
    return replace(found, reference=best, best=best)


def test_another_election(tmp_path: Path) -> None:
    run_platform(tiny(), tmp_path, reference=highest_r2)
    features = {
        name: np.load(tmp_path / "state" / "features" / f"{name}.npz")["features"] for name in NAMES
    }
    chosen = highest_r2(features, "best", 16, 0).reference
    assert chosen != elect(features, "best", 16, 0).reference, "the default, too: choose another"
    assert verify(tmp_path / "dataset")[0].reference == chosen


def test_another_assignment_decides_who_begins_and_who_takes_over(tmp_path: Path) -> None:
    asked: list[tuple[int, list[str]]] = []

    def to_the_last(blocks: Sequence[int], members: Sequence[Member]) -> list[str]:
        asked.append((len(blocks), [member.name for member in members]))
        return [members[-1].name] * len(blocks)

    class Liar(Audit):
        def judge(self, expected: Mapping[str, Expected], answers: Sequence[Answer]) -> Judgement:
            guilty = {"gamma": Verdict("it is not liked", {})} if "gamma" in expected else {}
            return Judgement(guilty, [], 0)

    run_platform(tiny(), tmp_path, assignment=to_the_last, audit=Liar())
    assert asked == [(11, NAMES), (11, ["alpha", "beta"])]
    provenance = verify(tmp_path / "dataset")[0]
    assert provenance.plan_changes[0]["reason"] == "it is not liked"
    dataset = coopt_fl.load(tmp_path)
    assert {NAMES[index] for index in dataset.participants} == {"beta"}


def test_another_audit_looks_at_each_payload(tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    class Strict(Audit):
        def inspect(self, unit: Any, known: Known, expected: Expected, alike: object) -> Any:
            rows = expected.fitted.shape, known.targets.shape
            assert rows == ((64, 16), (64, 16))
            seen[str(unit.participants[0])] = seen.get(str(unit.participants[0]), 0) + 1
            return "nothing of alpha's is good enough" if unit.participants[0] == 0 else None

    run_platform(tiny(), tmp_path, audit=Strict())
    assert verify(tmp_path / "dataset")[0].audit["rejected"] == ["alpha"]
    assert seen["0"] == 1
    assert sum(seen.values()) == 1 + 11


def test_alignments_are_judged_once_and_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a slow cross-validation runs, the platform continues to poll the nodes."""
    judged: list[tuple[str, bool, int]] = []
    grid = FakeGrid(3)
    true = Recipe.held_out

    def slow(self: Recipe, name: str, *arrays: Any) -> HeldOut:
        before, latest = grid.asked, time.monotonic() + 30
        while grid.asked < before + 4 and time.monotonic() < latest:
            time.sleep(0.01)
        main = threading.current_thread() is threading.main_thread()
        judged.append((name, main, grid.asked - before))
        return true(self, name, *arrays)

    monkeypatch.setattr(Recipe, "held_out", slow)
    run_platform(tiny(reference="consensus", **{"targets.dim": 16}), tmp_path, grid)
    assert sorted(name for name, _, _ in judged) == NAMES
    assert not any(main for _, main, _ in judged)
    assert all(looks > 3 for _, _, looks in judged)
    assert "r2_heldout" not in protocol.Aligned.__dataclass_fields__, "nobody grades itself"
    told = {one.name: one.r2_heldout for one in verify(tmp_path / "dataset")[0].contributors}
    shared = np.load(tmp_path / "state" / "shared_targets.npz")["targets"]
    for name, r2 in told.items():
        features = np.load(tmp_path / "state" / "features" / f"{name}.npz")["features"]
        seed = Recipe(16).align_seed(name)
        assert r2 == pytest.approx(held_out(features, shared, "ridge", seed).r2, abs=1e-12)
