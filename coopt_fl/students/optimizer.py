"""AdamW and its learning rate over the steps of a training."""

import math

from torch import nn
from torch.optim import AdamW, Optimizer

WARMUP = 0.05
"""Share of the steps over which the learning rate rises from near zero to its peak."""


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
    """Return AdamW with weight decay on matrices and kernels, but not on biases and norms."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=lr, fused=True)


def set_rate(optimizer: Optimizer, step: int, steps: int, peak: float) -> None:
    """Set the learning rate of ``step``, from 0 to ``steps`` - 1: linear warm-up, then cosine."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        rate = peak * (step + 1) / warmup
    else:
        rate = peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = rate
