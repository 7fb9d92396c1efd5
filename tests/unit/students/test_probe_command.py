"""``coopt probe``: both classifiers on the same features; only data settings are accepted."""

from dataclasses import asdict

import pytest
import torch

from coopt_fl import api
from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.data.labels import open_labels
from coopt_fl.students.checkpoint import LoadedStudent, load_student, save_student
from coopt_fl.students.classifier import fit_probe
from coopt_fl.students.images import resizing
from coopt_fl.students.models import build_student
from coopt_fl.students.probe import probe_student

DATA = DataConfig(source="synthetic", limit=100)


@pytest.fixture
def checkpoint(tmp_path):
    preprocess = resizing(8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    path = tmp_path / "c.pt"
    student = LoadedStudent(build_student("convnet:4", 8, 0), preprocess, {"data": asdict(DATA)})
    save_student(path, student)
    return path


def test_both_methods_are_fitted_on_images_encoded_once(checkpoint, monkeypatch):
    encoded, plain = [], LoadedStudent.features

    def counted(student, images):
        encoded.append(plain(student, images))
        return encoded[-1]

    monkeypatch.setattr(LoadedStudent, "features", counted)
    judged = api.probe(checkpoint, [])
    found = judged["accuracy"]
    assert judged["classifiers"].keys() == found.keys()
    train_y, test_y = (torch.from_numpy(open_labels(DATA, s)) for s in ("train", "test"))
    assert len(train_y) % 32 == 4 and 16 < len(test_y) < 32  # its last batch alone is padded
    train_x, test_x, padding = torch.cat(encoded).tensor_split([100, 100 + len(test_y)])
    assert len(padding) == 32 - len(test_y)
    for method in ("lbfgs", "adamw"):
        assert found[method] == fit_probe(train_x, train_y, test_x, test_y, method)


def test_the_data_can_be_changed(checkpoint):
    elsewhere = DataConfig(source="digits", limit=60)
    found = api.probe(checkpoint, ["data.source=digits", "data.limit=60"])
    assert found["accuracy"]["lbfgs"] == probe_student(load_student(checkpoint), elsewhere)
    assert load_student(checkpoint).meta["data"] == asdict(DATA)


@pytest.mark.parametrize(
    "change",
    ["student.epochs=5", "seed=1", "participants.0.name=ann", "shared.size=9", "data=5", "junk"],
)
def test_what_would_change_nothing_is_refused(checkpoint, change):
    with pytest.raises(ConfigError, match=rf"{change} would .*give data\.KEY=VALUE"):
        api.probe(checkpoint, ["data.limit=60", change])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("data.limits=5", "data.limits: no such key"),
        ("data.limit=many", "data.limit: 'many' is not allowed"),
        ("data.source=imagefolder", "data.root: missing"),
    ],
)
def test_what_the_data_have_not_is_refused(checkpoint, change, problem):
    with pytest.raises(ConfigError, match=problem):
        api.probe(checkpoint, [change])


def test_a_probe_has_no_shared_set_to_be_large_enough_for(checkpoint):
    assert api.probe(checkpoint, ["data.limit=3"])["accuracy"].keys() == {"lbfgs", "adamw"}
