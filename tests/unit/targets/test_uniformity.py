import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.targets import uniformity


def brute_force(x: np.ndarray, tau: float) -> float:
    """Compute every pair separately in float64, and sum exactly."""
    unit = [row / math.sqrt(math.fsum(row * row)) for row in x.astype(np.float64)]
    terms = [math.exp(-tau * math.fsum((a - b) ** 2)) for a, b in itertools.permutations(unit, 2)]
    return math.log(math.fsum(terms) / len(terms))


@pytest.mark.parametrize("tau", [0.5, 2.0, 20.0])
@pytest.mark.parametrize("block", [1, 7, 40, 41, 1024])
def test_equals_the_definition_whatever_the_block(tau: float, block: int) -> None:
    x = np.random.default_rng(0).standard_normal((41, 9)).astype(np.float32) + 0.3
    assert uniformity(x, tau, block) == pytest.approx(brute_force(x, tau), abs=1e-9)


def test_float32_and_bfloat16_tensors_count_as_what_they_hold() -> None:
    x = torch.randn(30, 12, generator=torch.Generator().manual_seed(0))
    assert uniformity(x) == pytest.approx(brute_force(x.numpy(), 2.0), abs=1e-9)
    half = x.bfloat16()
    assert uniformity(half) == pytest.approx(brute_force(half.float().numpy(), 2.0), abs=1e-9)


def test_two_opposite_rows() -> None:
    assert uniformity(np.array([[3.0, 0.0], [-0.1, 0.0]])) == pytest.approx(-8.0)


def test_collapse_is_the_worst() -> None:
    x = np.random.default_rng(0).standard_normal((50, 5))
    assert uniformity(np.ones((50, 5))) == pytest.approx(0.0, abs=1e-12)
    assert uniformity(x) < uniformity(x + 3) < 0


def test_isotropic_noise_on_a_large_sphere_approaches_its_limit() -> None:
    """Independent directions have ||a - b||^2 = 2 - 2t with t of variance 1/m."""
    x = np.random.default_rng(0).standard_normal((1500, 400))
    assert uniformity(x) == pytest.approx(-4 + 16 / 2 / 400, abs=2e-3)


def test_does_not_underflow_where_the_plain_mean_would() -> None:
    """Three orthogonal rows are all sqrt(2) apart: exp(-1000 * 2) is zero in float64."""
    assert uniformity(np.eye(3), tau=1000.0) == pytest.approx(-2000.0)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e30])
def test_scale_of_the_features_does_not_matter(scale: float) -> None:
    x = np.random.default_rng(1).standard_normal((20, 6))
    assert uniformity((x * scale).astype(np.float32)) == pytest.approx(uniformity(x), abs=1e-5)


@settings(max_examples=40)
@given(rows=st.integers(2, 12), width=st.integers(1, 6), seed=st.integers(0, 999))
def test_is_invariant_to_rotation_row_scale_and_order(rows: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, width))
    rotation = np.linalg.qr(rng.standard_normal((width, width)))[0]
    changed = rng.permutation((x @ rotation) * rng.uniform(0.1, 10, (rows, 1)))
    value = uniformity(x)
    assert uniformity(changed, block=5) == pytest.approx(value, abs=1e-9)
    assert -8.0 - 1e-9 <= value <= 1e-9


class Largest(TorchDispatchMode):
    """Records the size in bytes of the largest tensor that any operation returned."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.bytes = max(self.bytes, made.nbytes)
        return made


def test_memory_is_of_a_block_not_of_all_pairs() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((6000, 8)))
    with Largest() as largest:
        uniformity(x, block=256)
    assert 0 < largest.bytes <= max(x.nbytes, 8 * 256**2)  # all pairs in float64 are 288 MB


def test_the_features_stay_as_they_were() -> None:
    x = np.random.default_rng(0).standard_normal((10, 3))
    before = x.copy()
    uniformity(x)
    assert (x == before).all()


def test_refuses_what_has_no_pairs_or_is_not_finite() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        uniformity(np.ones((1, 4)))
    with pytest.raises(PriorError, match="row 2"):
        uniformity(np.array([[1.0, 2.0], [2.0, 1.0], [np.nan, 1.0]]))
    with pytest.raises(PriorError, match="matrix"):
        uniformity(np.ones(4))
