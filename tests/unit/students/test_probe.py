from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_iris, load_wine
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
from coopt_fl.students.probe import (
    TOLERANCE,
    Judge,
    fit_linear,
    fit_probe,
    probe_prior,
    random_student,
)


def blobs(samples=300, width=20, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=samples)
    x = rng.normal(size=(classes, width))[y] * 0.6 + rng.normal(size=(samples, width))
    return x * rng.uniform(0.1, 10, width) + rng.normal(size=width), y


def wide():
    return blobs(samples=60, width=200)


def regularised_loss(weight, bias, x, y):
    """What LogisticRegression minimises with C = 1, divided by the samples."""
    scores = x @ weight.T + bias
    log_odds = scores[np.arange(len(y)), y] - np.logaddexp.reduce(scores, axis=1)
    return -log_odds.mean() + 0.5 * np.square(weight).sum() / len(y)


@pytest.mark.parametrize(
    "make",
    [blobs, wide, lambda: load_iris(return_X_y=True), lambda: load_wine(return_X_y=True)],
    ids=["blobs", "wide", "iris", "wine"],
)
def test_agrees_with_scikit_learn(make):
    x, y = make()
    scaler = StandardScaler().fit(x)
    reference = LogisticRegression(tol=1e-10, max_iter=10_000).fit(scaler.transform(x), y)
    found = fit_linear(torch.from_numpy(x), torch.from_numpy(y))
    weight, bias = found.weight.numpy(), found.bias.numpy()
    ours = regularised_loss(weight, bias, scaler.transform(x), y)
    theirs = regularised_loss(reference.coef_, reference.intercept_, scaler.transform(x), y)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert np.abs(weight - reference.coef_).max() < 0.02
    # only differences of the biases matter, and no solver decides what they have in common
    gap = bias - reference.intercept_
    assert np.ptp(gap) < 0.02
    predicted = found.predict(torch.from_numpy(x)).numpy()
    assert (predicted == reference.predict(scaler.transform(x))).all()


def test_a_gpu_s_solver_ends_where_scikit_learn_does():
    """It is torch's, and runs on any device."""
    x, y = (torch.from_numpy(array) for array in blobs())
    x = (x - x.mean(0)) / x.std(0, correction=0)
    with torch.enable_grad():
        found, wanted = (solve(x, y, 4) for solve in (probing._lbfgs_on_gpu, probing._lbfgs))
    for weight, bias in (found, wanted):
        error = torch.softmax(x @ weight.T + bias, 1) - torch.eye(4)[y]
        assert (error.T @ x + weight).abs().max() < len(x) * TOLERANCE
    assert (found[0] - wanted[0]).abs().max() < 0.02


def test_two_classes_have_the_softmax_optimum():
    """scikit-learn fits one weight per feature for two classes, so check stationarity itself."""
    x, y = blobs(classes=2)
    found = fit_linear(torch.from_numpy(x), torch.from_numpy(y))
    z = (torch.from_numpy(x) - found.mean) / found.std
    error = torch.softmax(z @ found.weight.T + found.bias, 1) - torch.eye(2)[torch.from_numpy(y)]
    gradient = error.T @ z + found.weight
    assert gradient.abs().max() < len(x) * TOLERANCE
    assert error.sum(0).abs().max() < len(x) * TOLERANCE


def test_labels_may_be_any_numbers_and_an_unseen_class_counts_as_wrong():
    x, y = blobs()
    names = torch.tensor([7, -3, 100, 5])[torch.from_numpy(y)]
    features = torch.from_numpy(x)
    plain = fit_probe(features, torch.from_numpy(y), features, torch.from_numpy(y))
    assert fit_probe(features, names, features, names) == plain
    strange = names.clone()
    strange[: len(strange) // 2] = 999
    predicted = fit_linear(features, names).predict(features)
    expected = (predicted == strange).double().mean().item()
    assert fit_probe(features, names, features, strange) == expected < 0.5


def test_a_constant_feature_and_a_single_class_are_harmless():
    x, y = (torch.from_numpy(array) for array in blobs())
    constant = torch.cat([x, torch.full((len(x), 1), 3.7)], dim=1)
    assert fit_probe(constant, y, constant, y) == fit_probe(x, y, x, y)
    assert fit_probe(x, torch.ones(len(x)).long(), x, torch.ones(len(x)).long()) == 1.0


@pytest.mark.parametrize("scale", [1e-14, 1e-6, 1e9])
def test_the_scale_of_the_features_does_not_matter(scale):
    """An untrained network's can be 1e-14 and tell its images apart all the same."""
    x, y = (torch.from_numpy(array) for array in blobs())
    assert fit_probe(x * scale, y, x * scale, y) == pytest.approx(fit_probe(x, y, x, y), abs=0.01)


def test_adamw_comes_close_and_is_repeatable():
    x, y = (torch.from_numpy(array) for array in blobs(samples=2000))
    train, test = slice(1000), slice(1000, None)
    parts = (x[train], y[train], x[test], y[test])
    best = fit_probe(*parts)
    found = fit_probe(*parts, method="adamw")
    assert found == fit_probe(*parts, method="adamw")
    assert abs(found - best) < 0.03 and best > 0.6


def test_float32_features_of_the_size_that_is_not_doubled_agree(monkeypatch):
    x, y = (torch.from_numpy(array) for array in blobs())
    double = fit_linear(x, y)
    monkeypatch.setattr("coopt_fl.students.probe.DOUBLE_ENTRIES", 0)
    single = fit_linear(x, y)
    assert single.weight.dtype == torch.float32 and double.weight.dtype == torch.float64
    assert torch.allclose(single.weight.double(), double.weight, atol=5e-3)


class Pixels(nn.Module):
    """Its features are the pixels; remembers the sizes of its batches."""

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
    monkeypatch.setattr("coopt_fl.students.probe.fit_linear", full)
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
