"""The heterogeneous crowd: its domains and its specialists."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coopt_fl.config.schema import (
    AssignmentConfig,
    Config,
    DataConfig,
    ParticipantConfig,
    SplitConfig,
)
from coopt_fl.core.cache import cache_dir
from coopt_fl.data import open_source, split_labels
from coopt_fl.data.partition import partition
from coopt_fl.students.checkpoint import load_student
from coopt_fl.students.models import build_student
from coopt_fl.students.objectives import make_objective
from coopt_fl.students.objectives.objective import Setting
from experiments import command, domains, specialists
from experiments.heterogeneous import PRIOR, by_domain, crowd_central
from experiments.lab import Lab
from experiments.scales import SCALES
from experiments.table import fill
from tests.unit.data.make import encode, parquet, pixels

(STUDY,) = SCALES["smoke"].values()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of three domains, with few images of CIFAR-10 and Fashion-MNIST."""
    root = tmp_path_factory.mktemp("domains")
    for split, debian, count in (("train", "train", 20), ("test", "t10k", 10)):
        labels = np.arange(count) % 10
        images = [encode(pixels(k)) for k in range(count)]
        parquet(root / f"{split}.parquet", images, label=labels.tolist())
        grey = np.full((count, 28, 28), 200, np.uint8)
        for name, head, content in (("images-idx3", 16, grey), ("labels-idx1", 8, labels)):
            with gzip.open(root / f"{debian}-{name}-ubyte.gz", "wb") as file:
                file.write(bytes(head) + content.astype(np.uint8).tobytes())
    words = ["--out", str(root / "set"), "--cifar", str(root), "--fashion", str(root)]
    assert command.run(domains.main, words) == 0
    return root / "set"


def test_the_set_has_three_domains_with_classes_of_their_own(made: Path) -> None:
    data = DataConfig("parquet", str(made))
    for split, few, digits in (("train", 10, 718), ("test", 10, 360)):
        source, labels = open_source(data, split), split_labels(data, split)
        assert labels is not None
        names = source.column("domain")
        assert dict(zip(*np.unique(names, return_counts=True), strict=True)) == {
            "cifar10": few, "digits": digits, "fashion": few,
        }  # fmt: skip
        of = {name: set(labels[names == name].tolist()) for name in np.unique(names)}
        assert of == {
            "cifar10": {*range(10)}, "fashion": {*range(10, 20)}, "digits": {*range(20, 30)},
        }  # fmt: skip
        assert {tuple(one.shape) for one in source.read(source.ids[:50])} == {(3, 32, 32)}
        cloth = source.read(np.flatnonzero(names == "fashion")[:1])[0]
        assert (cloth[:, 2:-2, 2:-2] == 200).all() and (cloth.sum() == 3 * 28 * 28 * 200)


def test_a_run_may_give_each_participant_a_domain(made: Path) -> None:
    names = ("cifar10", "digits", "fashion")
    config = Config(
        data=DataConfig("parquet", str(made)),
        participants=[ParticipantConfig(name, "trivial:8") for name in names],
        assignment=AssignmentConfig("column:domain"),
    )
    parts = partition(config, open_source(config.data))
    assert parts is not None
    assert [len(parts[name]) for name in names] == [10, 718, 10]


def test_a_specialist_is_trained_once_on_its_own_images(made: Path) -> None:
    study = replace(STUDY, data=DataConfig("parquet", str(made), limit=64))
    spec = "trained:specialists-digits/labels/convnet:2/1"
    first = specialists.loadable(spec, study)
    file = Path(first.removeprefix("checkpoint:"))
    meta, written = load_student(file).meta, file.stat().st_mtime_ns
    own = replace(study.data, split=SplitConfig(train="specialists-digits"))
    assert meta["fingerprint"] == open_source(own).fingerprint
    assert meta["student"]["model"] == "convnet:2" and meta["epochs"] == 1
    assert specialists.loadable(spec, study) == first
    assert file.stat().st_mtime_ns == written
    others = replace(study, data=replace(study.data, limit=63))
    assert specialists.loadable(spec, others) != first
    assert specialists.loadable("trivial:4", study) == "trivial:4"
    crowd = replace(study, crowd=(spec, "trivial:4"))
    known = specialists.trained_weights(crowd)
    assert [*known] == [spec]
    assert known == specialists.trained_weights(replace(crowd, crowd=(spec, "trivial:8")))
    assert known != specialists.trained_weights(replace(others, crowd=(spec, "trivial:4")))


def test_labels_are_learned_by_the_cross_entropy_of_linear_scores() -> None:
    data = DataConfig("synthetic", limit=40)
    student = build_student("convnet:2", 8, seed=0).eval()
    name = specialists.labelled(data)
    objective = make_objective(name, student, Setting(samples=40), seed=0)
    views, rows = torch.randn(5, 3, 8, 8), torch.tensor([3, 17, 20, 39, 3])
    loss = objective([views], rows, 0.0)
    head = objective.head
    scores = (student(views) @ head.weight.T + head.bias).detach().numpy().astype(np.float64)
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    wanted = chances[np.arange(5), rows.numpy() % 10]  # the classes of these images
    assert loss.item() == pytest.approx(-np.log(wanted).mean(), rel=1e-5)
    assert specialists.labelled(data) == name


def test_results_name_specialists_by_their_recipe(tmp_path: Path) -> None:
    spec = STUDY.crowd[1]
    assert spec.startswith("trained:")
    file = tmp_path / "a.json"
    cell = {"targets": spec, "features": PRIOR}
    fill(file, "none", "synthetic", Lab(STUDY), crowd_central, cell)
    assert spec in file.read_text() and str(cache_dir()) not in file.read_text()
    (found,) = json.loads(file.read_text())["synthetic"]["cells"]
    assert found["accuracy"] == found["all"] == found["all, one probe"]


def test_probes_by_domain_see_who_knows_what(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(replace(STUDY, data=DataConfig("parquet", str(made))))
    labels, features = lab.labels(), []
    labels[1][lab.domains("test") == "fashion"] = -1  # as a class has that no train image is of
    labels[1][np.flatnonzero(lab.domains("test") == "fashion")[:5]] = 10
    monkeypatch.setattr(lab, "labels", lambda: labels)
    for split, known in zip(("train", "test"), labels, strict=True):
        shown = np.eye(30)[known]
        shown[lab.domains(split) != "digits"] = 0  # a specialist's
        features.append(shown[known >= 0].astype(np.float32))
    found = by_domain(lab, features)
    assert found["digits"] == found["digits, one probe"] == 1.0
    assert found["cifar10"] == pytest.approx(0.1) and found["fashion"] in (0.0, 1.0)
    domains = [found[name] for name in ("cifar10", "fashion", "digits")]
    assert found["mean of the domains"] == pytest.approx(np.mean(domains))
    assert found["accuracy"] in [pytest.approx(right / 375) for right in (360, 361, 365)]
