"""Runs with ``assignment.partition``, which fixes each sample's participant."""

import os
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

import coopt_fl
from coopt_fl import delivery
from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ConfigError, DataError, ParticipantError
from coopt_fl.core.progress import Progress
from coopt_fl.data import from_arrays, open_source
from coopt_fl.data.blocks import shared_set
from coopt_fl.data.partition import partition
from coopt_fl.federation import protocol
from coopt_fl.federation.job import whole_job
from coopt_fl.optimized.verify import verify
from coopt_fl.policies.assignment import BY_WEIGHT
from coopt_fl.priors import load_prior
from coopt_fl.strategies.inspection import Inspection
from coopt_fl.targets import represent
from tests.flower.deployment import Deployment, Nth, impatient, patient, targets_of
from tests.flower.grid import FakeGrid, run_platform, tiny
from tests.flower.test_lies import Lying, noise

NAMES = ("alpha", "beta", "gamma")
SKEWED = {"assignment.partition": "dirichlet:0.3", "reference": "consensus"}
HOW: dict[str, Any] = {"batch_size": 8, "precision": "float32", "on_error": "raise"}
ULP = 2.0**-10
"""Relative precision of float16."""

ASKED = {
    protocol.REPRESENT: protocol.Represent,
    protocol.PROJECT: protocol.Project,
    protocol.OPTIMIZE: protocol.Optimize,
}


def parts_of(config: Config) -> dict[str, np.ndarray]:
    parts = partition(config, open_source(config.data))
    assert parts is not None
    return parts


def asked(grid: FakeGrid) -> dict[str, set[int]]:
    """Return the ids that each participant was sent."""
    found = defaultdict[str, set[int]](set)
    for message in grid.sent:
        if kind := ASKED.get(message.metadata.message_type):
            name = NAMES[message.metadata.dst_node_id - 100]
            found[name] |= {*protocol.decode(kind, message.content).ids.tolist()}
    return found


def test_a_dataset_has_the_targets_that_any_partition_gives(tmp_path: Path) -> None:
    """Alignments are fitted on S alone, so a participant's targets do not depend on its shard."""
    found, config = {}, tiny(**SKEWED)
    for name, chosen in (("skewed", config), ("iid", tiny(reference="consensus"))):
        run_platform(chosen, tmp_path / name)
        provenance, problems = verify(tmp_path / name / "dataset")
        assert problems == []
        dataset = coopt_fl.load(tmp_path / name)
        order = np.argsort(dataset.ids)
        assert np.array_equal(dataset.ids[order], np.arange(203))
        owners = dataset.participants[order]
        found[name] = (dataset.targets[order].astype(np.float32), owners, provenance)
    for place, (name, own) in enumerate(parts_of(config).items()):
        assert np.array_equal(np.flatnonzero(found["skewed"][1] == place), own), name
    maps = [[one.alignment_sha256 for one in found[name][2].contributors] for name in found]
    assert maps[0] == maps[1]
    same = found["skewed"][1] == found["iid"][1]
    assert 0 < same.sum() < 203
    mine, theirs = (found[name][0][same] for name in found)
    assert (np.abs(mine - theirs) <= 2 * ULP * np.abs(theirs) + 1e-6).all()
    source = open_source(config.data)
    for place, one in enumerate(config.participants):  # the others, too: by formula
        stored = np.load(tmp_path / "iid" / "state" / "alignments" / f"{one.name}.npz")
        prior = load_prior(one.prior, "cpu")
        features = represent(prior, source, source.ids, **HOW).values
        wanted = features @ stored["weight"] + stored["bias"]
        here = found["skewed"][1] == place
        assert np.abs(found["skewed"][0][here] - wanted[here]).max() < 0.01
    assert verify(tmp_path / "skewed" / "dataset")[0].audit["samples"] == 0


@pytest.mark.parametrize("reference", ["best", "consensus"])
def test_nobody_is_asked_about_anothers_samples(reference: str, tmp_path: Path) -> None:
    """This includes the audit and the reference's projection; only S is sent to all."""
    config = tiny(**SKEWED | {"reference": reference, "audit.fraction": 0.3})
    grid = run_platform(config, tmp_path)
    shared = np.load(tmp_path / "state" / "order.npz")["shared"].tolist()
    for name, own in parts_of(config).items():
        assert asked(grid)[name] == {*own.tolist(), *shared}
    assert verify(tmp_path / "dataset")[1] == []


def forgetful(grid: Lying, request: protocol.Optimize, told: protocol.Payload) -> Any:
    """Answer repeated ids with noise, except those of the shared set."""
    before = [one.ids for name, one in grid.seen if name == grid.liar]
    again = np.isin(told.ids, np.concatenate([*before, np.empty(0, np.int64)]))
    again[np.setdiff1d(np.arange(len(told.ids)), np.unique(told.ids, return_index=True)[1])] = True
    again &= ~np.isin(told.ids, shared_set(np.arange(203), 64, 0))
    changed = np.where(again[:, None], noise(told.targets.shape), told.targets)
    return replace(told, targets=changed.astype(np.float16))


def test_who_answers_twice_must_say_the_same(tmp_path: Path) -> None:
    """The remaining audit requests samples of a participant's own other blocks again."""
    config = patient(**SKEWED | {"audit.fraction": 0.5})
    grid = Lying(liar="beta", lie=forgetful).start(*NAMES)
    with pytest.raises(ParticipantError, match=r"beta: of samples asked for twice.*nobody else"):
        run_platform(config, tmp_path, grid)


def test_who_is_lost_is_waited_for_and_not_replaced(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    run_platform(patient(**SKEWED), whole, Deployment().start(*NAMES))
    grid = Deployment(fault=Nth("beta", 2, lambda grid: grid.kill("beta"))).start(*NAMES)
    with pytest.raises(
        ParticipantError, match=r"beta: .*Start it again: with assignment\.partition=.* nobody else"
    ):
        run_platform(impatient(**SKEWED), tmp_path / "cut", grid)
    run_platform(impatient(**SKEWED), tmp_path / "cut", Deployment().start(*NAMES))
    assert coopt_fl.load(tmp_path / "cut").digest == coopt_fl.load(whole).digest
    assert verify(tmp_path / "cut" / "dataset")[0].plan_changes == []
    targets_of(tmp_path / "cut")


def test_skew_alone_accuses_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets of a single class have less spread, which would be odd for random samples."""
    rng, labels = np.random.default_rng(0), np.arange(300) % 3
    colours = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]])
    images = colours[labels][:, None, None] + rng.integers(-3, 4, (300, 8, 8, 3))
    from_arrays(images.clip(0, 255).astype(np.uint8), labels).save(tmp_path / "data")
    own = {"data.source": "arrays", "data.root": tmp_path / "data", "reference": "best"}
    large = {"optimize.block_rows": 100, "shared.size": 200}
    config = tiny(**own, **large, **{"assignment.partition": "column:label"})
    run_platform(config, tmp_path / "out")
    assert verify(tmp_path / "out" / "dataset")[1] == []
    monkeypatch.setattr(Inspection, "_unlike_shared", frozenset())
    with pytest.raises(ParticipantError, match=r"are spread|different values|dimensions"):
        run_platform(config, tmp_path / "judged")


def test_what_it_means_is_told_before_the_work(tmp_path: Path) -> None:
    told: list[str] = []

    class Heard(Progress):
        def warn(self, message: str) -> None:
            told.append(message)

    def begun() -> None:
        raise KeyboardInterrupt

    config = tiny(**SKEWED | {"student.model": "convnet:2"})
    with pytest.raises(KeyboardInterrupt):
        whole_job(config, tmp_path / "out", Heard(), begun)
    assert any("nobody takes over from another" in sentence for sentence in told)
    without = tiny(**{"assignment.partition": "column:nowhere", "student.model": "convnet:2"})
    with pytest.raises(DataError, match="has no column 'nowhere'"):
        whole_job(without, tmp_path / "none", Progress(), begun)
    with pytest.raises(ConfigError, match="leaves nothing to another assignment policy"):
        run_platform(config, tmp_path / "two", assignment=BY_WEIGHT)


@dataclass
class Holders(FakeGrid):
    """Participants that have only the files of their own blocks and of the shared set."""

    url: Path = Path()
    held: Path = Path()
    owners: dict[str, list[str]] = field(default_factory=dict)

    def hand_out(self) -> None:
        for name, (first, last) in self.owners.items():
            for file in self.url.rglob("*.*"):
                path = str(file.relative_to(self.url))
                if not path.startswith("blocks/") or first <= path <= last:
                    copy = self.held / name / path
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.write_bytes(file.read_bytes())

    def _answer(self, message: Message) -> Message:
        mine = self.held / NAMES[message.metadata.dst_node_id - 100]
        whole = self.url.rename(self.url.with_name("whole"))
        cache = os.environ["COOPT_CACHE"]
        os.environ["COOPT_CACHE"] = str(mine / "cache")
        self.url.symlink_to(mine)
        try:
            return super()._answer(message)
        finally:
            self.url.unlink()
            whole.rename(self.url)
            os.environ["COOPT_CACHE"] = cache


def test_participants_that_hold_only_their_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path / "cache"))
    config, url = tiny(**SKEWED), tmp_path / "shards"
    run_platform(config, tmp_path / "all")
    config.data.shards = str(url)
    published = delivery.publish_shards(config, url=str(url), progress=None)
    grid = Holders(3, url=url, held=tmp_path / "held", owners=published["owners"])
    grid.hand_out()
    files = [{*(grid.held / name / "blocks").iterdir()} for name in NAMES]
    assert sum(map(len, files)) == published["files"] - 1
    run_platform(config, tmp_path / "own", grid)
    assert coopt_fl.load(tmp_path / "own").digest == coopt_fl.load(tmp_path / "all").digest
    other = tiny(**SKEWED | {"assignment.partition": "dirichlet:0.4", "data.shards": str(url)})
    with pytest.raises(DataError, match="are of other blocks, assignment"):
        run_platform(other, tmp_path / "other")
