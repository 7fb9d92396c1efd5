from unittest.mock import Mock

import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from coopt_fl.config.schema import DataConfig, StudentConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.data import Preprocess, open_source
from coopt_fl.data.labels import open_labels
from coopt_fl.priors import Prior
from coopt_fl.students import probe as probing
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.probe import Judge, probe_prior, random_student


class Pixels(nn.Module):
    """A model whose features are the pixels; it records the sizes of its batches."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        return images.flatten(1)


def pixels(model=None):
    """A prior whose features are the levels of 8x8 pixels."""
    zero, levels = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)
    preprocess = Preprocess(8, 8, "bilinear", zero, levels)
    return Prior("pixels", 192, "0" * 64, preprocess, model or Pixels(), torch.device("cpu"))


def test_pixels_of_the_digits_score_as_in_scikit_learn():
    data = DataConfig()
    x, y = {}, {}
    for split in ("train", "test"):
        source = open_source(data, split)
        x[split] = torch.stack(source.read(source.ids)).flatten(1).float().numpy()
        y[split] = open_labels(data, split)
    scaler = StandardScaler().fit(x["train"])
    reference = LogisticRegression(tol=1e-6, max_iter=5000)
    reference.fit(scaler.transform(x["train"]), y["train"])
    expected = reference.score(scaler.transform(x["test"]), y["test"])
    assert probe_prior(pixels(), data) == pytest.approx(expected, abs=1e-9)


def test_the_limit_is_a_repeatable_choice_over_the_whole_split(monkeypatch):
    model, data = Pixels(), DataConfig()
    first = probe_prior(pixels(model), data, limit=200)
    assert sum(model.batches) == 400 and max(model.batches) <= 64
    monkeypatch.setattr("coopt_fl.students.probe.BATCH", {"cpu": 7})
    assert probe_prior(pixels(), data, limit=200) == first > 0.8


def test_images_without_labels_or_without_a_test_split_are_not_encoded(tmp_path, monkeypatch):
    data = DataConfig(source="imagefolder", root=str(tmp_path))
    student = random_student(StudentConfig(model="convnet:2"), DataConfig(limit=20), seed=0)
    monkeypatch.setattr(LoadedStudent, "features", None)
    for name in ("train/a/1.png", "train/b/2.png", "train/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
        if name != "train/a/1.png":
            assert probe_prior(pixels(full), data) is None
            assert set(Judge(data).accuracies(student).values()) == {None}


def full(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 EiB")


def test_a_gpu_without_memory_is_one_sentence(monkeypatch):
    data = DataConfig(limit=50)
    student = random_student(StudentConfig(model="convnet:2"), data, seed=0)
    with pytest.raises(ConfigError, match=r"to encode the images: .*lower data\.limit"):
        probe_prior(pixels(full), data)
    monkeypatch.setattr("coopt_fl.students.classifier.fit_linear", full)
    for probe in (lambda: probe_prior(pixels(), data), lambda: Judge(data)(student)):
        with pytest.raises(ConfigError, match=r"to fit the probe: .*lower data\.limit"):
            probe()
    monkeypatch.setattr(LoadedStudent, "features", full)
    with pytest.raises(ConfigError, match=r"to encode the images: .*lower data\.limit"):
        Judge(data)(student)


def test_a_probe_tells_how_far_it_is(monkeypatch):
    monkeypatch.setattr(probing, "SHOWN_ROWS", 64)
    data = DataConfig(limit=100)
    student = random_student(StudentConfig(model="convnet:2"), data, seed=0)
    for of_prior in (True, False):
        seen = []

        def told(*what, seen=seen):
            seen.append(what)

        probe_prior(pixels(), data, told=told) if of_prior else Judge(data, told=told)(student)
        assert seen == sorted(seen) and seen[-1] == (200, 200, probing.FITTING)
        assert len(seen) > 3 and {total for _, total, *_ in seen} == {200}


def test_what_takes_a_moment_is_not_shown(monkeypatch):
    progress = Mock()
    monkeypatch.setattr(probing, "SHORT", 1e9)
    probing.probing(progress, "a student")(1, 2)
    progress.show.assert_not_called()
    monkeypatch.setattr(probing, "SHORT", -1)
    probing.probing(progress, "a student")(2, 2, "end")
    progress.show.assert_called_once_with("probe", 2, 2, "image", "a student end")
