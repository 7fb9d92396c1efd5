"""Runs with ``assignment.by=competence``: images go to the participants that know their like."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import coopt_fl
from coopt_fl import Preprocess, delivery
from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ConfigError, DataError
from coopt_fl.core.progress import Progress
from coopt_fl.data import from_arrays
from coopt_fl.federation import protocol
from coopt_fl.federation.plan import read_plan
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.block import Block
from coopt_fl.optimized.verify import verify
from coopt_fl.policies.assignment import Member
from coopt_fl.policies.audit import Audit, Known
from coopt_fl.policies.evidence import Expected
from coopt_fl.policies.spreads import Alike
from coopt_fl.priors.spec import PriorSpec
from coopt_fl.registry import PARTS
from tests.flower.deployment import Deployment, Nth, impatient
from tests.flower.grid import run_platform, tiny
from tests.flower.test_lies import LIES, Lying, digits, rejection
from tests.flower.test_lies import NAMES as FOUR

NAMES = ("alpha", "beta", "gamma")
ROWS = 203


class Keen(torch.nn.Module):
    """Sees one colour well, and of the others only how bright they are."""

    def __init__(self, colour: int) -> None:
        super().__init__()
        self.colour = colour

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = images.mean(dim=(2, 3))
        return torch.cat([images[:, self.colour].flatten(1), bright], dim=1)


@pytest.fixture(autouse=True)
def keen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Register priors that know one colour each; regions are in a cache of their own."""
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path / "cache"))
    before = dict(PARTS._parts)

    @coopt_fl.register.prior("keen", form="keen:COLOUR")
    def keen(spec: PriorSpec) -> tuple[torch.nn.Module, Preprocess]:
        return Keen(int(spec.name)), Preprocess(8, 8, "bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)

    yield
    PARTS._parts = before


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Images of three colours, each with patterns of its own, and a participant that knows each."""
    rng, colours = np.random.default_rng(0), np.arange(ROWS) % 3
    patterns = rng.standard_normal((3, 6, 64))
    images = np.full((ROWS, 8, 8, 3), 40.0)
    for row, colour in enumerate(colours):
        pattern = rng.standard_normal(6) @ patterns[colour]
        images[row, :, :, colour] = 150 + 12 * pattern.reshape(8, 8)
    from_arrays(images.clip(0, 255).astype(np.uint8), colours).save(tmp_path / "data")
    return {
        "data.source": "arrays",
        "data.root": tmp_path / "data",
        "data.limit": "null",
        "assignment.by": "competence",
        "reference": "consensus",
        "optimize.block_rows": 5,
        **{f"participants.{k}.prior": f"keen:{k}" for k in range(3)},
    }


def knowing(out: Path) -> float:
    """Return the share of samples whose participant knows their colour."""
    dataset = coopt_fl.load(out)
    return float((dataset.ids % 3 == dataset.participants).mean())


def test_everyone_gets_what_it_knows(settings: dict[str, Any], tmp_path: Path) -> None:
    run_platform(tiny(**settings), tmp_path / "out")
    provenance, problems = verify(tmp_path / "out" / "dataset")
    assert problems == []
    assert provenance.audit["rejected"] == provenance.audit["undecided"] == []
    assert provenance.audit["samples"] > 0
    assert provenance.plan_changes == []
    assert knowing(tmp_path / "out") > 0.95
    run_platform(tiny(**settings | {"assignment.by": "weight"}), tmp_path / "equal")
    assert knowing(tmp_path / "equal") < 0.5


def test_the_limit_of_a_share_can_be_lifted(settings: dict[str, Any], tmp_path: Path) -> None:
    """By weight alone, alpha would get an eleventh, and it knows a third."""
    slow = settings | {"participants.0.weight": 0.2}
    run_platform(tiny(**slow), tmp_path / "twice")
    run_platform(tiny(**slow, **{"assignment.most": "null"}), tmp_path / "any")
    assert knowing(tmp_path / "twice") < 0.9
    assert knowing(tmp_path / "any") > 0.95


@pytest.mark.parametrize("by", ["competence", "weight"])
@pytest.mark.parametrize("share", [0.9, 1.0])
def test_it_is_told_when_nobody_checks_who_makes_nearly_all(
    share: float,
    by: str,
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def greedy(blocks: Sequence[int], members: Sequence[Member]) -> list[str]:
        first = int(share * len(blocks))
        return ["beta"] * first + ["gamma"] * (len(blocks) - first)

    told, heard = list[str](), Progress()
    monkeypatch.setattr(heard, "warn", told.append)
    config = tiny(**settings | {"assignment.by": by})
    run_platform(config, tmp_path / "out", assignment=greedy, progress=heard)
    alone = [text for text in told if "beta makes" in text and "nobody else checks" in text]
    assert len(alone) == (share == 1.0)


@pytest.mark.parametrize(
    "unchecked", [{"audit.fraction": 0}, {"assignment.partition": "dirichlet:1000"}, {}]
)
def test_it_is_told_only_of_who_could_be_checked(
    unchecked: dict[str, Any],
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told, heard = list[str](), Progress()
    monkeypatch.setattr(heard, "warn", told.append)
    most = {"assignment.by": "weight", "participants.1.weight": 60}
    run_platform(tiny(**settings | most | unchecked), tmp_path / "out", progress=heard)
    assert any("beta makes" in text for text in told) is not bool(unchecked), "it has 97%"


@pytest.mark.parametrize(("at", "times"), [(protocol.ALIGN, 1), (protocol.OPTIMIZE, 2)])
def test_an_interrupted_run_goes_on_with_the_same_regions(
    at: str, times: int, settings: dict[str, Any], tmp_path: Path
) -> None:
    run_platform(tiny(**settings), tmp_path / "whole")
    config, out = impatient(**settings), tmp_path / "cut"
    fault = Nth("beta", times, lambda grid: grid.kill("beta"))
    with pytest.raises(coopt_fl.CooptError, match=r"beta: .*Start it again"):
        run_platform(config, out, Deployment(fault=fault, at=at).start(*NAMES))
    before = read_plan(RunState(out))
    shutil.rmtree(tmp_path / "cache")
    run_platform(config, out, Deployment().start(*NAMES))
    after = read_plan(RunState(out))
    assert before is not None and after is not None
    assert before.regions == after.regions
    assert before.owners == (after.owners if at == protocol.OPTIMIZE else [])
    assert coopt_fl.load(out).digest == coopt_fl.load(tmp_path / "whole").digest


def test_who_is_lost_before_the_assignment_gets_nothing(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    config = impatient(**settings, min_participants=2)
    fault = Nth("beta", 1, lambda grid: grid.kill("beta"))
    grid = Deployment(fault=fault, at=protocol.REPRESENT).start(*NAMES)
    run_platform(config, tmp_path / "out", grid)
    assert 1 not in coopt_fl.load(tmp_path / "out").participants
    assert verify(tmp_path / "out" / "dataset")[1] == []


def test_who_joins_late_takes_over_nothing_before_the_assignment(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """The others may go on without who is lost then; alone it is waited for."""
    config = impatient(**settings, min_participants=1)

    def replaced(grid: Deployment) -> None:
        grid.kill("alpha")
        grid.start("beta")

    grid = Deployment(fault=Nth("alpha", 1, replaced), at=protocol.REPRESENT).start("alpha")
    with pytest.raises(coopt_fl.CooptError, match=r"alpha: .*Start it again"):
        run_platform(config, tmp_path / "out", grid)
    run_platform(config, tmp_path / "out", Deployment().start("alpha"))
    assert {*coopt_fl.load(tmp_path / "out").participants.tolist()} == {0}


def test_others_take_over_by_competence(settings: dict[str, Any], tmp_path: Path) -> None:
    """Gamma has beta's prior too, so it is the better heir."""
    settings |= {"participants.2.prior": "keen:1", "participants.1.weight": 2}
    config = impatient(**settings, min_participants=2)
    grid = Deployment(fault=Nth("beta", 2, lambda grid: grid.kill("beta"))).start(*NAMES)
    run_platform(config, tmp_path / "out", grid)
    provenance, problems = verify(tmp_path / "out" / "dataset")
    (change,) = provenance.plan_changes
    assert problems == []
    plan = read_plan(RunState(tmp_path / "out"))
    assert change["origin"] == "beta" and plan is not None
    heirs = dict(zip(change["blocks"], change["owners"], strict=True))
    green = {block for block in heirs if (plan.blocks[block] % 3 == 1).all()}
    assert green and {heirs[block] for block in green} == {"gamma"}


@pytest.mark.parametrize("name", ["permuted, but for the shared set", "half as large"])
def test_a_liar_is_rejected_whatever_it_knows(name: str, tmp_path: Path) -> None:
    config = digits(**{"assignment.by": "competence"})
    grid = Lying(lie=LIES[name]).start(*FOUR)
    run_platform(config, tmp_path / "out", grid)
    rejection(tmp_path / "out", "delta")


@pytest.mark.parametrize(
    "name", ["constant, but for the shared set", "five times as large, but for the shared set"]
)
def test_the_spread_is_judged_within_the_region(name: str, tmp_path: Path) -> None:
    """So few samples are compared that others could not tell."""
    few = {"assignment.by": "competence", "audit.fraction": 0.001}
    many = {"data.limit": 1437, "shared.size": 220}
    config = digits(reference="consensus", **few, **many)
    run_platform(config, tmp_path / "honest", Deployment().start(*FOUR))
    assert verify(tmp_path / "honest" / "dataset")[0].audit["rejected"] == []
    plan = read_plan(RunState(tmp_path / "honest"))
    assert plan is not None
    liar = max(FOUR, key=lambda one: len(plan.blocks_of(one)))
    run_platform(config, tmp_path / "out", Lying(liar=liar, lie=LIES[name]).start(*FOUR))
    reason = rejection(tmp_path / "out", liar, 1437)["reason"]
    assert "different values" in reason or "targets are spread" in reason


def compared(config: Config, out: Path) -> list[tuple[int, Block, Alike | None]]:
    """Run the platform; return each block's index and payload, and what its spread is judged by."""
    seen: list[tuple[Block, Alike | None]] = []

    class Watchful(Audit):
        def inspect(
            self, unit: Block, known: Known, expected: Expected, alike: Alike | None
        ) -> str | None:
            seen.append((unit, alike))
            return super().inspect(unit, known, expected, alike)

    run_platform(config, out, audit=Watchful())
    plan = read_plan(RunState(out))
    assert plan is not None and len(seen) == len(plan.units)
    places = {unit.tobytes(): index for index, unit in enumerate(plan.units)}
    return [(places[unit.ids.tobytes()], unit, alike) for unit, alike in seen]


def test_a_block_is_compared_with_the_shared_samples_of_its_region(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = compared(tiny(**settings | {"audit.fraction": 0.5}), out)
    plan = read_plan(RunState(out))
    assert plan is not None and len({*plan.regions}) > 1
    for index, unit, alike in found:
        own, region = set(plan.blocks[index].tolist()), plan.regions[index]
        same = [
            block for block, other in zip(plan.blocks, plan.regions, strict=True) if other == region
        ]
        like = set(np.concatenate(same).tolist())
        assert alike is not None
        assert alike.rows.tolist() == [id in own for id in unit.ids.tolist()]
        assert alike.shared.tolist() == [id in like for id in plan.shared.tolist()]
        assert not alike.rows.all() and not alike.shared.all()


def test_the_shared_set_tells_nothing_if_the_projection_was_fitted_on_it(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    single = compared(tiny(**settings | {"reference": "best"}), tmp_path / "single")
    assert [alike for _, _, alike in single] == [None] * len(single)


def test_random_blocks_are_compared_with_the_whole_shared_set(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    config = tiny(**settings | {"assignment.by": "weight"})
    for _, unit, alike in compared(config, tmp_path / "out"):
        assert alike is not None
        assert (alike.rows.tolist(), alike.shared.all()) == ([True] * len(unit.ids), True)


def test_published_shards_hold_its_blocks(settings: dict[str, Any], tmp_path: Path) -> None:
    config, url = tiny(**settings), tmp_path / "shards"
    run_platform(config, tmp_path / "direct")
    config.data.shards = str(url)
    assert delivery.publish_shards(config, url=str(url), progress=None)["owners"] == {}
    run_platform(config, tmp_path / "shared")
    direct, shared = (coopt_fl.load(tmp_path / name) for name in ("direct", "shared"))
    assert direct.digest == shared.digest
    other = tiny(**settings | {"assignment.by": "weight", "data.shards": str(url)})
    with pytest.raises(DataError, match="are of other blocks"):
        run_platform(other, tmp_path / "other")


def test_private_targets_and_few_blocks(settings: dict[str, Any], tmp_path: Path) -> None:
    few = {"optimize.block_rows": 150, "privacy.clip": 2.0, "privacy.noise_multiplier": 0.01}
    run_platform(tiny(**settings | few), tmp_path / "out")
    provenance, problems = verify(tmp_path / "out" / "dataset")
    assert problems == [] and provenance.privacy is not None


def test_a_partition_leaves_nothing_to_it(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="competence has no meaning with"):
        tiny(**settings | {"assignment.partition": "column:label"})
