"""``coopt evaluate``: each figure compared with an independent computation."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coopt_fl import api
from coopt_fl.config.schema import DataConfig, StudentConfig
from coopt_fl.core.errors import ConfigError, DataError
from coopt_fl.data import open_labels, open_source
from coopt_fl.students.checkpoint import LoadedStudent, load_student, save_student
from coopt_fl.students.evaluate import few_labels
from coopt_fl.students.probe import probe_student, random_student
from tests.unit.command import Coopt
from tests.unit.data.make import tree

DATA = DataConfig(source="digits", limit=300)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    student = random_student(StudentConfig(model="convnet:8"), DATA, seed=0)
    path = tmp_path / "student" / "checkpoint.pt"
    save_student(
        path, replace(student, meta={"data": asdict(DATA), "student": {"augment": "none"}})
    )
    return path


def encoded(student: LoadedStudent, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    source, labels = open_source(DATA, split), open_labels(DATA, split)
    assert labels is not None
    features = student.features(torch.stack(source.read(source.ids)))
    return torch.clone(features), torch.from_numpy(labels)


def test_every_figure_is_what_another_way_gives(checkpoint: Path) -> None:
    found = api.evaluate(checkpoint, fine_tune=0, progress=None)
    student = load_student(checkpoint)
    (train_x, train_y), (test_x, test_y) = (encoded(student, one) for one in ("train", "test"))
    assert (found.train, found.test) == (300, 300)
    assert found.linear == probe_student(student, DATA)
    cosine = torch.nn.functional.cosine_similarity(test_x[:, None], train_x[None], dim=2)
    near = cosine.double().topk(20)
    votes = torch.zeros(300, 10, dtype=torch.float64)
    votes.scatter_add_(1, train_y[near.indices], (near.values / 0.07).exp())
    assert found.knn == pytest.approx(float((votes.argmax(1) == test_y).double().mean()), abs=0.01)
    confusion = np.array(found.confusion)
    assert confusion.sum(1).tolist() == np.bincount(test_y).tolist()
    assert confusion.trace() / 300 == pytest.approx(found.linear)
    for one in found.classes:
        row = confusion[one.label]
        assert (one.test, one.train) == (row.sum(), int((train_y == one.label).sum()))
        assert one.accuracy == pytest.approx(row[one.label] / row.sum())


def test_few_labels_are_as_many_of_each_class_and_more_of_them_help(checkpoint: Path) -> None:
    found = api.evaluate(checkpoint, fine_tune=0, progress=None)
    assert [few.labels for few in found.few] == [10, 100, 300]  # no class has 100
    one, ten, every = found.few
    assert 0.1 < one.accuracy < ten.accuracy < every.accuracy
    assert (every.accuracy, every.draws, every.std) == (found.linear, 1, 0.0)
    assert ten.draws == 5 and ten.std > 0


def test_with_one_label_a_class_only_these_rows_are_used() -> None:
    """Each row is its own one-hot vector, so only the chosen rows can be classified."""
    train_x, train_y = torch.eye(6), torch.tensor([0, 0, 0, 1, 1, 1])
    few = few_labels(train_x, train_y, train_x, train_y, 3)
    assert (few.labels, few.accuracy) == (6, 1.0)
    assert few_labels(train_x, train_y, train_x, train_y, 1).accuracy < 1


@pytest.mark.whole
def test_fine_tuning_learns_what_features_at_random_do_not_have(checkpoint: Path) -> None:
    before = load_student(checkpoint).model.state_dict()
    found = api.evaluate(checkpoint, fine_tune=20, progress=None)
    again = api.evaluate(checkpoint, fine_tune=20, progress=None)
    assert found.fine_tuned is not None and found.fine_tuned > found.linear
    assert (found.fine_tuned, found.epochs) == (again.fine_tuned, 20)
    after = load_student(checkpoint).model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_without_an_epoch_fine_tuning_is_the_probe(checkpoint: Path) -> None:
    """Fine-tuning starts from the probe: with a step size of 0 the accuracy stays the same."""
    from coopt_fl.students import finetune
    from coopt_fl.students.classifier import fit_linear
    from coopt_fl.students.probe import Judge

    student, judge = load_student(checkpoint), Judge(DATA)
    features, labels = judge.encode(student)[0]
    assert labels is not None
    train, test = judge.marked(student.model.image_size)
    tuned = finetune.fine_tuned(student, fit_linear(features, labels), train, test, 0, print)
    assert tuned == probe_student(student, DATA)


def test_other_data_may_be_named_and_must_have_labels(checkpoint: Path, tmp_path: Path) -> None:
    found = api.evaluate(checkpoint, ["data.limit=100"], fine_tune=0, progress=None)
    assert found.train == 100
    tree(tmp_path / "photos", [f"train/{k}.png" for k in range(4)])
    elsewhere = ["data.source=imagefolder", f"data.root={tmp_path / 'photos'}"]
    with pytest.raises(DataError, match="no labels in both of its splits"):
        api.evaluate(checkpoint, elsewhere, progress=None)
    with pytest.raises(ConfigError, match=r"an evaluation depends on the data alone, so seed=1"):
        api.evaluate(checkpoint, ["seed=1"], progress=None)


def test_the_command_prints_a_table_and_json(coopt: Coopt, checkpoint: Path) -> None:
    code, out, err = coopt("evaluate", str(checkpoint), "--fine-tune", "1", "--json")
    assert (code, '"confusion": [[' in out) == (0, True)
    assert "20 nearest neighbours" in err and "fine-tuned, 1 epoch" in err


def test_classes_have_the_names_of_their_folders(coopt: Coopt, checkpoint: Path) -> None:
    names = [
        f"{split}/{name}/{k}.png"
        for split in ("train", "test")
        for name in ("otter", "10", "0")
        for k in range(3)
    ]
    tree(coopt.folder / "photos", names)
    elsewhere = ("data.source=imagefolder", f"data.root={coopt.folder / 'photos'}", "data.limit=9")
    code, out, err = coopt("evaluate", str(checkpoint), *elsewhere, "--fine-tune", "0", "--json")
    classes = json.loads(out)["classes"]
    assert (code, [(one["label"], one["name"]) for one in classes]) == (
        0,
        [(0, ""), (1, "10"), (2, "otter")],
    )
    assert "1 10" in err and "2 otter" in err
