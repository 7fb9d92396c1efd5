import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from coopt_fl.core.errors import ConfigError
from coopt_fl.students import classifier
from coopt_fl.students.classifier import TOLERANCE, LinearClassifier, fit_linear, fit_probe


def blobs(samples=300, width=20, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=samples)
    x = rng.normal(size=(classes, width))[y] * 0.6 + rng.normal(size=(samples, width))
    return x * rng.uniform(0.1, 10, width) + rng.normal(size=width), y


def wide():
    return blobs(samples=60, width=200)


def regularised_loss(weight, bias, x, y):
    """Return the loss that LogisticRegression minimises with C = 1, divided by N."""
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
    """The GPU solver is torch's L-BFGS, which also runs on the CPU here."""
    x, y = (torch.from_numpy(array) for array in blobs())
    x = (x - x.mean(0)) / x.std(0, correction=0)
    with torch.enable_grad():
        found, wanted = (solve(x, y, 4) for solve in (classifier._lbfgs_on_gpu, classifier._lbfgs))
    for weight, bias in (found, wanted):
        error = torch.softmax(x @ weight.T + bias, 1) - torch.eye(4)[y]
        assert (error.T @ x + weight).abs().max() < len(x) * TOLERANCE
    assert (found[0] - wanted[0]).abs().max() < 0.02


def test_two_classes_have_the_softmax_optimum():
    """scikit-learn fits one weight per feature for two classes, so check stationarity itself."""
    x, y = blobs(classes=2)
    found = fit_linear(torch.from_numpy(x), torch.from_numpy(y))
    z = (torch.from_numpy(x).float() - found.mean) / found.std
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
    """Features of an untrained network can be as small as 1e-14 and still separate the images."""
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


def test_how_far_a_classifier_is_from_the_optimum():
    """The gradient is compared with finite differences of scikit-learn's loss."""
    x, y = blobs(samples=40, width=3)
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(4, 3)), rng.normal(size=4)
    scaler = StandardScaler().fit(x)

    def loss(step):
        return regularised_loss(weight + step[:, 1:], bias + step[:, 0], scaler.transform(x), y)

    steps = 1e-5 * np.eye(16).reshape(16, 4, 4)
    slopes = [(loss(step) - loss(-step)) / 2e-5 for step in steps]
    names = np.array([7, 30, 31, 100])
    parts = map(torch.from_numpy, (weight, bias, scaler.mean_, scaler.scale_, names))
    found = LinearClassifier(*parts).steepness(torch.from_numpy(x), torch.from_numpy(names[y]))
    assert found == pytest.approx(np.abs(slopes).max(), rel=1e-3)


def test_float32_is_left_only_where_it_stops_too_early(monkeypatch):
    x, y = (torch.from_numpy(array) for array in blobs())
    found = fit_linear(x, y)
    assert found.weight.dtype == torch.float32
    assert found.steepness(x, y) < 1.01 * TOLERANCE
    monkeypatch.setattr(classifier, "TOLERANCE", 1e-9)
    exact = fit_linear(x, y)
    assert exact.weight.dtype == torch.float64
    assert exact.steepness(x, y) < 1e-7  # as far as features that were standardised in float32 can
    assert torch.allclose(found.weight.double(), exact.weight, atol=0.02)
    monkeypatch.setattr(classifier, "DOUBLE_ENTRIES", 0)
    assert fit_linear(x, y).weight.dtype == torch.float32


@pytest.mark.parametrize("method", ["lbfgs", "adamw"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_one_sentence(method, value):
    x, y = (torch.from_numpy(one) for one in blobs())
    x[3, 4] = value
    with pytest.raises(ConfigError, match=r"not finite: .*student\.lr"):
        fit_linear(x, y, method)
