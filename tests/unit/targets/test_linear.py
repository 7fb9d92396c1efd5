import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from coopt_fl.core.errors import PriorError
from coopt_fl.targets.collaborate import CPU
from coopt_fl.targets.linear import (
    as_matrix,
    is_constant,
    principal_axes,
    principal_scores,
    random_orthonormal,
)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (5, 5), (7, 1)])
def test_random_orthonormal(shape: tuple[int, int]) -> None:
    w = random_orthonormal(*shape, 3, CPU).numpy()
    gram = w.T @ w if shape[0] >= shape[1] else w @ w.T
    assert w.shape == shape
    np.testing.assert_allclose(gram, np.eye(min(shape)), atol=1e-12)
    assert (w == random_orthonormal(*shape, 3, CPU).numpy()).all()
    assert not np.allclose(w, random_orthonormal(*shape, 4, CPU).numpy())


def test_random_orthonormal_has_no_preferred_sign() -> None:
    """LAPACK's QR alone fixes signs by R's diagonal, which biases the first entry."""
    corners = [random_orthonormal(3, 3, seed, CPU)[2, 2] for seed in range(400)]
    assert abs(np.mean(corners)) < 0.12  # uniform on the sphere: sd 0.58 / 20


@pytest.mark.parametrize("shape", [(60, 20), (20, 60), (30, 30)])
def test_principal_axes_and_scores_are_those_of_scikit_learn(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape) * np.geomspace(10, 0.1, shape[1])
    x -= x.mean(axis=0)
    pca = PCA(5, svd_solver="full").fit(x)
    centred = torch.from_numpy(x)
    axes, scores = principal_axes(centred, 5).numpy(), principal_scores(centred, 5).numpy()
    signs = np.sign((axes * pca.components_.T).sum(axis=0))
    np.testing.assert_allclose(axes, pca.components_.T * signs, atol=1e-8)
    expected = pca.transform(x)
    signs = np.sign((scores * expected).sum(axis=0))
    np.testing.assert_allclose(scores, expected * signs, atol=1e-7)


def test_the_sign_of_an_axis_does_not_depend_on_the_data_s() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((40, 6)))
    x -= x.mean(dim=0)
    axes = principal_axes(x, 4)
    np.testing.assert_allclose(axes, principal_axes(-x, 4), atol=1e-12)
    assert (axes.amax(dim=0) >= -axes.amin(dim=0)).all()


def test_as_matrix_copies_to_float64() -> None:
    x = np.ones((2, 3))
    as_matrix(x, "features")[:] = 7
    assert (x == 1).all()
    for tensor in (torch.ones(2, 3).bfloat16(), torch.ones(2, 3).half()):
        found = as_matrix(tensor.requires_grad_(), "features")
        assert found.dtype == torch.float64
        assert (found == 1).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e39])
def test_as_matrix_names_the_first_row_that_float32_cannot_hold(bad: float) -> None:
    x = np.ones((5, 2))
    x[3:, 1] = bad
    with pytest.raises(PriorError, match="features are not finite in row 3"):
        as_matrix(x, "features")


def test_rounding_is_not_variance() -> None:
    x = torch.full((7, 3), 0.1).double()
    assert is_constant(x - x.mean(dim=0), x)
    x[0, 0] = float(np.nextafter(np.float32(0.1), np.float32(1)))
    assert not is_constant(x - x.mean(dim=0), x)
    assert is_constant(torch.zeros(3, 2), torch.zeros(3, 2))


def test_the_rows_of_a_copy_are_contiguous_whatever_those_of_the_original_are() -> None:
    by_column = np.asfortranarray(np.arange(12.0, dtype=np.float32).reshape(3, 4))
    for given in (by_column, torch.from_numpy(by_column), torch.arange(12.0).view(4, 3).T):
        assert as_matrix(given, "features").is_contiguous()
