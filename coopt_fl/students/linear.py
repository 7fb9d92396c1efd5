"""Linear classifiers on frozen features: multinomial logistic regression."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from coopt_fl.core.seeding import derive_seed
from coopt_fl.students.optimizer import set_rate

INVERSE_STRENGTH = 1.0
"""scikit-learn's C: weight of the summed loss against half the squared norm of the weights."""

DOUBLE_ENTRIES = 1 << 27
"""Features are fitted in float64 up to this many entries (1 GB), above it in float32."""

ADAMW_EPOCHS, ADAMW_BATCH, ADAMW_LR, ADAMW_DECAY = 50, 128, 1e-3, 0.01
"""Of the ``adamw`` variant. The paper names the optimizer and the batch, but nothing else."""


@dataclass(frozen=True)
class LinearClassifier:
    """Scores ``(x - mean) / std @ weight.T + bias`` of C classes for features x (B, m)."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor
    classes: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """Return the class, as it was labeled, of each row of features (B, m)."""
        x = (features.to(self.weight) - self.mean) / self.std
        return self.classes[F.linear(x, self.weight, self.bias).argmax(1)]


def fit_linear(
    features: Tensor, labels: Tensor, method: str = "lbfgs", seed: int = 0
) -> LinearClassifier:
    """Fit a classifier on standardised features.

    Args:
        features: (N, m), any float type.
        labels: int64 (N,), any values.
        method: ``lbfgs``, deterministic: the optimum that scikit-learn's ``LogisticRegression``
            with its default penalty finds on standardised features; or ``adamw``, a linear
            layer trained by AdamW in batches of 128, as in the paper.
        seed: Decides the batches of ``adamw``.
    """
    double = features.numel() <= DOUBLE_ENTRIES and method == "lbfgs"
    x = features.to(torch.float64 if double else torch.float32)
    mean, std = x.mean(0), x.std(0, correction=0)
    constant = std <= 1e-6 * x.abs().amax(0)  # up to rounding, at any scale of the features
    std = torch.where(constant, 1.0, std)  # a constant feature becomes 0
    classes, y = torch.unique(labels.to(x.device), return_inverse=True)
    solvers: dict[str, Callable[..., None]] = {"lbfgs": _lbfgs, "adamw": partial(_adamw, seed)}
    weight = x.new_zeros(len(classes), x.shape[1], requires_grad=True)
    bias = x.new_zeros(len(classes), requires_grad=True)
    with torch.enable_grad():
        solvers[method]((x - mean) / std, y, weight, bias)
    return LinearClassifier(weight.detach(), bias.detach(), mean, std, classes)


def _lbfgs(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Move weight (C, m) and bias (C,) to the optimum, which is unique up to a common bias."""
    decay = 0.5 / (INVERSE_STRENGTH * len(x))
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=1000,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(F.linear(x, weight, bias), y) + decay * weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    solver.step(objective)


def _adamw(seed: int, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Train weight (C, m) and bias (C,) by AdamW with a cosine schedule."""
    solver = torch.optim.AdamW([weight, bias], lr=ADAMW_LR, weight_decay=ADAMW_DECAY)
    steps = -(-len(x) // ADAMW_BATCH)
    for epoch in range(ADAMW_EPOCHS):
        generator = torch.Generator().manual_seed(derive_seed(seed, "probe", epoch))
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for step, rows in enumerate(torch.split(order, ADAMW_BATCH), start=epoch * steps):
            set_rate(solver, step, ADAMW_EPOCHS * steps, ADAMW_LR)
            solver.zero_grad()
            torch.autograd.backward(F.cross_entropy(F.linear(x[rows], weight, bias), y[rows]))
            solver.step()
