"""The affine map from a prior's features to targets, and how it is fitted on the shared set."""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.registry import PARTS
from coopt_fl.targets.linear import Features, as_matrix
from coopt_fl.targets.solvers import Affine, Solver

LEAST_ROWS = 4
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Alignment:
    """Targets are ``features @ weight + bias``.

    Attributes:
        weight: float32 (m, n).
        bias: float32 (n,).
        solver: Name of the solver or projection that made it.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    solver: str

    def __post_init__(self) -> None:
        """Copy the arrays, so that they are writable and contiguous, as torch needs to share them.

        Raises:
            PriorError: the shapes do not fit, or an entry is not finite.
        """
        for name in ("weight", "bias"):
            array = np.array(getattr(self, name), np.float32, order="C")
            if not np.isfinite(array).all():
                raise PriorError(
                    f"the alignment's {name} is not finite: check the prior's features"
                )
            object.__setattr__(self, name, array)
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[1:]:
            shapes = f"weight {self.weight.shape} and bias {self.bias.shape}"
            raise PriorError(f"an alignment has weight (m, n) and bias (n,), not {shapes}")

    def on(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Return the map on ``device``; the weight is copied there once.

        It maps features (B, m) to targets float32 (B, n), and raises PriorError if the features
        have another width.
        """
        weight = torch.from_numpy(self.weight).to(device)
        bias = torch.from_numpy(self.bias).to(device)

        def apply(x: Tensor) -> Tensor:
            if x.ndim != 2 or x.shape[1] != len(weight):
                raise PriorError(
                    f"features of shape {tuple(x.shape)} do not fit an alignment of width "
                    f"{len(weight)}"
                )
            return torch.addmm(bias, x.float(), weight)

        return apply

    @property
    def sha256(self) -> str:
        """The sha256 (hex) of the bytes of weight and bias, little-endian."""
        return hashlib.sha256(
            self.weight.astype("<f4").tobytes() + self.bias.astype("<f4").tobytes()
        ).hexdigest()


def fit_alignment(
    source: Features, target: Features, solver: str = "ridge", seed: int = 0
) -> Alignment:
    """Fit T_k of the paper's alignment step (section 3.3) on the shared set, in float64.

    Args:
        source: (S, m) features of the shared set, or targets to be realigned; the fit is computed
            on their device.
        target: (S, n) the reference's targets of the same rows.
        solver: ridge | procrustes | lstsq | sgd | none, or a registered one.
        seed: Seed of the solvers that draw random numbers.

    Raises:
        ConfigError: there are fewer than 4 rows, or there is no such solver, or it returned other
            shapes.
        PriorError: an entry is not finite, or the rows do not correspond.
    """
    solve, x, y = _prepared(source, target, solver)
    if len(x) < 2 * y.shape[1] and solver != "none":
        warnings.warn(
            f"{len(x)} shared samples are few for targets of width {y.shape[1]}: "
            f"set shared.size to {2 * y.shape[1]} or more, or targets.dim lower",
            UserWarning,
            stacklevel=2,
        )
    weight, bias = _fit(solve, x, y, seed)
    if weight.shape != (x.shape[1], y.shape[1]) or bias.shape != y.shape[1:]:
        raise ConfigError(
            f"targets.solver={solver} returned weight {tuple(weight.shape)} and bias "
            f"{tuple(bias.shape)}, not {(x.shape[1], y.shape[1])} and {tuple(y.shape[1:])}"
        )
    return to_alignment(weight, bias, solver)


def to_alignment(weight: Tensor, bias: Tensor, solver: str) -> Alignment:
    """Return the map, fitted on any device, as float32 arrays on the CPU."""
    return Alignment(weight.float().cpu().numpy(), bias.float().cpu().numpy(), solver)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out targets of the shared set, from cross-validation.

    Attributes:
        targets: float32 (S, n), each row by an alignment fitted without it, as it is for samples
            outside of the shared set. The folds' alignments are shifted to a common mean.
        r2: Share of the variance of the reference's targets that they predict, at most 1; 0 if
            there is no variance.
    """

    targets: NDArray[np.float32]
    r2: float


def held_out(source: Features, target: Features, solver: str = "ridge", seed: int = 0) -> HeldOut:
    """Judge an alignment by 5-fold cross-validation over the shared set.

    The error of :func:`fit_alignment` on the rows it was fitted on says nothing about other rows:
    with S near m it may reproduce any target. Arguments and errors are those of
    :func:`fit_alignment`.
    """
    solve, x, y = _prepared(source, target, solver)
    predicted, means = torch.empty_like(y), torch.empty_like(y)
    for fold in folds(len(x), seed):
        kept = np.delete(np.arange(len(x)), fold)
        weight, bias = _fit(solve, x[kept], y[kept], seed)
        predicted[fold] = x[fold] @ weight + bias
        means[fold] = x[kept].mean(dim=0) @ weight + bias
    centred = predicted - means + means.mean(dim=0)
    return HeldOut(centred.float().cpu().numpy(), r2_score(y, predicted))


def folds(rows: int, seed: int) -> list[NDArray[np.int64]]:
    """Return the rows of each held-out fold: seeded, disjoint, sizes equal to within one."""
    rng = np.random.default_rng(derive_seed(seed, "folds"))
    return np.array_split(rng.permutation(rows), min(_FOLDS, rows))


def r2_score(target: Tensor, predicted: Tensor) -> float:
    """Return 1 - residual / variance, summed over all entries; 0 where there is no variance."""
    variance = float((target - target.mean(dim=0)).square().sum())
    if variance <= 1e-24 * float(target.square().sum()):
        return 0.0
    return 1.0 - float((target - predicted).square().sum()) / variance


def _prepared(source: Features, target: Features, solver: str) -> tuple[Solver, Tensor, Tensor]:
    """Return the solver, and source and target in float64 on the source's device."""
    solve: Solver = PARTS.find("solver", solver).call
    x = as_matrix(source, "features")
    y = as_matrix(target, "targets").to(x.device)
    if len(x) != len(y):
        raise PriorError(f"features of {len(x)} samples cannot be aligned to targets of {len(y)}")
    if len(x) < LEAST_ROWS:
        raise ConfigError(
            f"shared.size must be at least {LEAST_ROWS}: alignment got {len(x)} samples"
        )
    return solve, x, y


def _fit(solve: Solver, x: Tensor, y: Tensor, seed: int) -> Affine:
    """Return the solver's fit as tensors; a registered solver may return numpy arrays."""
    weight, bias = solve(x, y, seed)
    return torch.as_tensor(weight).to(x), torch.as_tensor(bias).to(x)
