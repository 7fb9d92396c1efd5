"""AdamW and its learning rate over the steps of a training."""

import math

from torch import nn
from torch.optim import AdamW, Optimizer

WARMUP = 0.05
"""Part of all steps in which the learning rate rises from near zero."""


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
    """Return AdamW that decays matrices and kernels, but neither biases nor norms."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=lr, fused=True)


def rate_at(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of step 0 <= ``step`` < ``steps``: linear warm-up, then cosine."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Let the next step use the learning rate ``rate``."""
    for group in optimizer.param_groups:
        group["lr"] = rate
