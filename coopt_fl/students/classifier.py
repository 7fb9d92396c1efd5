"""The linear classifier of the probe: logistic regression, fitted by L-BFGS or by AdamW."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from coopt_fl.core.errors import ConfigError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.students.loop import set_rate

INVERSE_STRENGTH = 1.0
"""scikit-learn's C: weight of the summed loss against half the squared norm of the weights."""

TOLERANCE, MOST_STEPS = 1e-4, 1000
"""When L-BFGS stops: largest gradient entry of the mean loss (as in scikit-learn), iterations."""

DOUBLE_ENTRIES = 1 << 27
"""Largest number of feature entries (N * m) that may be fitted in float64 (1 GB)."""

ADAMW_EPOCHS, ADAMW_BATCH, ADAMW_LR, ADAMW_DECAY = 50, 128, 1e-3, 0.01
"""Settings of the ``adamw`` variant. The paper states only the optimizer and the batch size."""

METHODS = {
    "lbfgs": "logistic regression, fitted until it converges: the one that all summaries show",
    "adamw": f"a linear layer after {ADAMW_EPOCHS} epochs of AdamW: comparable with the paper's",
}
"""What each classifier is, see :func:`fit_linear`."""


def fit_probe(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, method: str = "lbfgs"
) -> float:
    """Fit a classifier on the train features and return its test accuracy in [0, 1].

    Args:
        train_x: (N, m); both splits are standardised by the statistics of this one.
        train_y: int64 (N,).
        test_x: (T, m).
        test_y: int64 (T,); rows of a class that ``train_y`` lacks count as wrong.
        method: See :func:`fit_linear`.
    """
    predicted = fit_linear(train_x, train_y, method).predict(test_x)
    return float((predicted == test_y.to(predicted.device)).double().mean())


@dataclass(frozen=True)
class LinearClassifier:
    """A classifier with scores ``(x - mean) / std @ weight.T + bias``.

    Attributes:
        weight: (C, m) for C classes.
        bias: (C,).
        mean: (m,), of the train features.
        std: (m,), likewise; 1 for a constant feature.
        classes: int64 (C,), ascending: the labels.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor
    classes: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """Return the predicted labels int64 (B,) of features (B, m)."""
        x = (features.to(self.weight) - self.mean) / self.std
        return self.classes[F.linear(x, self.weight, self.bias).argmax(1)]

    def steepness(self, features: Tensor, labels: Tensor) -> float:
        """Return the largest entry of the loss gradient on features (N, m) with labels (N,).

        Computed in float64; ``lbfgs`` stops once this is at most :data:`TOLERANCE`.
        """
        mean, std, weight, bias = (
            one.double() for one in (self.mean, self.std, self.weight, self.bias)
        )
        y = torch.searchsorted(self.classes, labels.to(self.classes))
        return _steepness((features.to(weight) - mean) / std, y, weight, bias)


def fit_linear(features: Tensor, labels: Tensor, method: str = "lbfgs") -> LinearClassifier:
    """Fit a classifier on standardised features.

    Args:
        features: (N, m), any float type.
        labels: int64 (N,), any values.
        method: ``lbfgs``: multinomial logistic regression with an L2 penalty, deterministic, with
            the defaults of scikit-learn's ``LogisticRegression``, which is used on a CPU; or
            ``adamw``: a linear layer trained by AdamW in batches of 128, as in the paper.

    Raises:
        ConfigError: The features are not finite.
    """
    double = features.is_cuda and method == "lbfgs" and features.numel() <= DOUBLE_ENTRIES
    x = features.detach().to(torch.float64 if double else torch.float32)
    mean, std = x.mean(0), x.std(0, correction=0)
    constant = std <= 1e-6 * x.abs().amax(0)  # up to rounding, at any scale of the features
    std = torch.where(constant, 1.0, std)  # a constant feature becomes 0
    classes, y = torch.unique(labels.to(x.device), return_inverse=True)
    fit = _adamw if method == "adamw" else _lbfgs_on_gpu if x.is_cuda else _lbfgs
    x = (x - mean) / std
    if not x.isfinite().all():
        raise ConfigError(
            "the features to judge are not finite: train the student again "
            "with a lower student.lr, or choose another prior"
        )
    with torch.enable_grad():
        weight, bias = fit(x, y, len(classes))
    return LinearClassifier(weight, bias, mean, std, classes)


def _lbfgs(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Fit float32 features by scikit-learn and return weight (C, m) and bias (C,).

    In float32 the line search can stall before the gradient is small enough, as rounding hides
    differences of the loss. The fit then continues in float64 from there.

    For two classes scikit-learn fits a single row w. With twice its ``C``, the optimum of the
    two-row model is (-w/2, w/2).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression  # takes a second

    if classes == 1:
        return x.new_zeros(1, x.shape[1]), x.new_zeros(1)
    strength = INVERSE_STRENGTH * (2 if classes == 2 else 1)
    solver = LogisticRegression(C=strength, tol=TOLERANCE, max_iter=MOST_STEPS, warm_start=True)

    def fitted(x: Tensor) -> tuple[Tensor, Tensor]:
        solver.fit(x.numpy(), y.numpy())
        weight, bias = torch.from_numpy(solver.coef_).to(x), torch.from_numpy(solver.intercept_)
        if classes == 2:
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        return weight, bias.to(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        weight, bias = fitted(x)
    if x.numel() <= DOUBLE_ENTRIES and _steepness(x, y, weight, bias) > TOLERANCE:
        weight, bias = fitted(x.double())
    return weight, bias


def _steepness(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> float:
    """Return the largest entry of the gradient of the mean loss, including the L2 penalty."""
    error = torch.softmax(F.linear(x, weight, bias), 1)
    error[torch.arange(len(y)), y] -= 1
    slopes = (error.T @ x + weight / INVERSE_STRENGTH) / len(x)
    return float(torch.maximum(slopes.abs().max(), error.mean(0).abs().max()))


def _lbfgs_on_gpu(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Fit by torch's L-BFGS, to scikit-learn's tolerance; return weight (C, m) and bias (C,)."""
    weight = x.new_zeros(classes, x.shape[1], requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
    decay = 0.5 / (INVERSE_STRENGTH * len(x))
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MOST_STEPS,
        tolerance_grad=TOLERANCE,
        tolerance_change=1e-12,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(F.linear(x, weight, bias), y) + decay * weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    solver.step(objective)
    return weight.detach(), bias.detach()


def _adamw(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Train by AdamW with a cosine schedule; return weight (C, m) and bias (C,)."""
    weight = x.new_zeros(classes, x.shape[1], requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
    solver = torch.optim.AdamW([weight, bias], lr=ADAMW_LR, weight_decay=ADAMW_DECAY)
    steps = -(-len(x) // ADAMW_BATCH)
    for epoch in range(ADAMW_EPOCHS):
        generator = torch.Generator().manual_seed(derive_seed(0, "probe", epoch))
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for step, rows in enumerate(torch.split(order, ADAMW_BATCH), start=epoch * steps):
            set_rate(solver, step, ADAMW_EPOCHS * steps, ADAMW_LR)
            solver.zero_grad()
            torch.autograd.backward(F.cross_entropy(F.linear(x[rows], weight, bias), y[rows]))
            solver.step()
    return weight.detach(), bias.detach()
