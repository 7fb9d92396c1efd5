"""What a student is trained to minimise: plain regression onto the targets."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

Objective = Callable[[Tensor, Tensor], Tensor]


def cosine(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean over the batch of 1 - cos(output, target); both (B, n), a scalar in [0, 2].

    Blind to the length of a target, so that a few long ones cannot dominate.
    """
    return 1 - F.cosine_similarity(output, target, dim=1).mean()


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error over all entries; both (B, n)."""
    return F.mse_loss(output, target)


OBJECTIVES: dict[str, Objective] = {"cosine": cosine, "mse": mse}
"""By the names that ``student.objective`` may have."""
