"""Fitting projections and alignments on a GPU; see :mod:`tests.unit.placement.gpu`."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from coopt_fl.targets import Alignment, projection, solvers
from coopt_fl.targets.alignment import to_alignment
from coopt_fl.targets.linear import principal_axes, principal_scores
from tests.unit.placement.gpu import GPU, META, Forgotten, pretended

ROWS, WIDTH, DIM = 20, 12, 5

FITS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "ridge": lambda x, y: solvers.ridge(x, y, 0),
    "ridge, dual": lambda x, y: solvers.ridge(x[:8], y[:8], 0),
    "procrustes": lambda x, y: solvers.procrustes(x, y, 0),
    "lstsq": lambda x, y: solvers.lstsq(x, y, 0),
    "none": lambda x, y: solvers.affine(lambda x, y, seed: solvers.none(x, y, seed)[0])(x, y, 0),
    "pca": lambda x, y: x @ projection.pca(x, DIM, 0) - y,
    "random": lambda x, y: x @ projection.random(x, DIM, 0) - y,
    "no projection": lambda x, y: x[:, :DIM] @ projection.none(y, DIM, 0),
    "axes": lambda x, y: x @ principal_axes(x, DIM) - y,
    "scores": lambda x, y: principal_scores(x[:8], DIM) - y[:8],
}


def double(*shape: int, device: torch.device) -> Tensor:
    return torch.empty(*shape, dtype=torch.float64, device=device)


def tensors(made: object) -> list[Tensor]:
    return [made] if isinstance(made, Tensor) else list(made)  # type: ignore[call-overload]


@pytest.mark.parametrize("fit", FITS)
def test_a_fit_stays_where_the_features_are(fit: str) -> None:
    with pretended():
        x, y = double(ROWS, WIDTH, device=GPU), double(ROWS, DIM, device=GPU)
        assert {one.device for one in tensors(FITS[fit](x, y))} == {GPU}


@pytest.mark.parametrize("fit", FITS)
def test_and_would_show_targets_left_on_the_cpu(fit: str) -> None:
    with pretended():
        x, y = double(ROWS, WIDTH, device=GPU), double(ROWS, DIM, device=torch.device("cpu"))
        with pytest.raises(Forgotten):
            FITS[fit](x, y)


@pytest.mark.whole
def test_gradient_descent_too() -> None:
    x, y = double(ROWS, WIDTH, device=META), double(ROWS, DIM, device=META)
    assert {one.device for one in solvers.sgd(x, y, 0)} == {META}
    with pytest.raises(Forgotten):
        solvers.sgd(x, torch.zeros(ROWS, DIM, dtype=torch.float64), 0)


def test_a_map_is_applied_on_the_gpu_and_comes_back_as_arrays() -> None:
    map = Alignment(np.ones((WIDTH, DIM), np.float32), np.zeros(DIM, np.float32), "")
    with pretended():
        apply = map.on(GPU)
        assert apply(torch.empty(4, WIDTH, device=GPU)).device == GPU
        with pytest.raises(Forgotten):
            apply(torch.empty(4, WIDTH))
        fitted = double(WIDTH, DIM, device=GPU), double(DIM, device=GPU)
        assert isinstance(to_alignment(*fitted, "").weight, np.ndarray)
