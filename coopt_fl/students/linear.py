"""Linear classifiers on frozen features: multinomial logistic regression."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from coopt_fl.core.seeding import derive_seed
from coopt_fl.students.optimizer import rate_at, set_rate

INVERSE_STRENGTH = 1.0
"""C: the loss summed over the samples counts this much against half the squared weights."""

DOUBLE_ENTRIES = 1 << 27
"""Features are fitted in float64 up to this many entries (1 GB), above it in float32."""

ADAMW_EPOCHS, ADAMW_BATCH, ADAMW_LR, ADAMW_DECAY = 50, 128, 1e-3, 0.01
"""The ``adamw`` variant: optimizer and batch as in the paper, which gives no more than those."""


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
        seed: Of the batches of ``adamw``.
    """
    double = features.numel() <= DOUBLE_ENTRIES and method == "lbfgs"
    x = features.to(torch.float64 if double else torch.float32)
    mean, std = x.mean(0), x.std(0, correction=0)
    constant = std <= 1e-6 * x.abs().amax(0)  # but for rounding, whatever the features' scale
    std = torch.where(constant, 1.0, std)  # a constant feature tells nothing
    classes, y = torch.unique(labels.to(x.device), return_inverse=True)
    solve = {"lbfgs": _lbfgs, "adamw": _adamw}[method]
    with torch.enable_grad():
        weight, bias = solve((x - mean) / std, y, len(classes), seed)
    return LinearClassifier(weight, bias, mean, std, classes)


def _lbfgs(x: Tensor, y: Tensor, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return weight (C, m) and bias (C,) at the optimum, which is unique up to a common bias."""
    weight = x.new_zeros(classes, x.shape[1], requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
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
    return weight.detach(), bias.detach()


def _adamw(x: Tensor, y: Tensor, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return weight (C, m) and bias (C,) after AdamW with a cosine schedule."""
    weight = x.new_zeros(classes, x.shape[1], requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
    solver = torch.optim.AdamW([weight, bias], lr=ADAMW_LR, weight_decay=ADAMW_DECAY)
    steps = -(-len(x) // ADAMW_BATCH)
    for epoch in range(ADAMW_EPOCHS):
        generator = torch.Generator().manual_seed(derive_seed(seed, "probe", epoch))
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for step, rows in enumerate(torch.split(order, ADAMW_BATCH), start=epoch * steps):
            set_rate(solver, rate_at(step, ADAMW_EPOCHS * steps, ADAMW_LR))
            solver.zero_grad()
            torch.autograd.backward(F.cross_entropy(F.linear(x[rows], weight, bias), y[rows]))
            solver.step()
    return weight.detach(), bias.detach()
