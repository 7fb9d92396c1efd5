"""Inputs that the loop prepares for an objective: float32 targets, and batches of one size."""

import numpy as np
import pytest
import torch

from coopt_fl.core.errors import DataError
from coopt_fl.students.loop import _lookup, _whole
from coopt_fl.targets.collaborate import CPU
from coopt_fl.targets.whitening import fit_whitening


def test_whitened_targets_are_exact_under_autocast() -> None:
    """Targets have a steep spectrum and correlated entries, with an error of 1/7 in bfloat16."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    targets = (rng.normal(size=(400, 32)) * 0.8 ** np.arange(32) @ turn).astype(np.float16)
    lookup, rows = _lookup(targets, True, torch.device("cpu")), torch.arange(50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = lookup(rows)
    assert found.dtype == torch.float32
    expected = fit_whitening(targets, CPU).on(CPU)(torch.from_numpy(targets[:50]))
    torch.testing.assert_close(found, expected)


def test_batches_that_lack_images_are_filled_with_those_there_are() -> None:
    """A batch without readable images is replaced by the one before."""
    images, rows = torch.arange(10).view(5, 2), torch.arange(7, 12)
    (one, first), (two, second), (three, third) = _whole(
        iter([(images, rows), (images[:3], rows[:3])]), steps=3, size=5
    )
    assert one is images and first is rows
    assert second.tolist() == third.tolist() == [7, 8, 9, 7, 8]
    assert torch.equal(two, images[[0, 1, 2, 0, 1]]) and torch.equal(three, two)


def test_an_epoch_without_images_is_an_error() -> None:
    with pytest.raises(DataError, match="none of the images"):
        list(_whole([], steps=3, size=5))
