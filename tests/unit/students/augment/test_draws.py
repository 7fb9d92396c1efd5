"""A view's random numbers: uniform, independent, and determined by the row, not by the batch."""

import numpy as np
import torch
from scipy import stats

from coopt_fl.students.augment.view import DRAWS, draw_view

ROWS = 20_000
M64 = 1 << 64


def splitmix(x: int) -> int:
    """SplitMix64's finaliser in Python's own integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % M64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % M64
    return x ^ (x >> 31)


def test_the_numbers_are_splitmix64s() -> None:
    seed, rows = 2**63 - 5, [0, 7, 10**12]
    drawn = draw_view(torch.tensor(rows), seed)
    for row, line in zip(rows, drawn, strict=True):
        for column, number in enumerate(line, 1):
            state = ((row * DRAWS + column) * 0x9E3779B97F4A7C15 + seed) % M64
            assert float(number) == (splitmix(splitmix(state)) >> 40) / 2**24


def test_they_are_uniform_and_do_not_know_of_each_other() -> None:
    drawn = draw_view(torch.arange(ROWS), 3).double().numpy()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    for column in drawn.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    both = np.hstack([drawn, np.roll(drawn, 1, axis=0), draw_view(torch.arange(ROWS), 4).numpy()])
    correlation = np.corrcoef(both.T) - np.eye(3 * DRAWS)
    assert np.abs(correlation).max() < 5 / ROWS**0.5


def test_a_row_has_its_numbers_in_any_batch() -> None:
    all_rows = draw_view(torch.arange(100), 5)
    some = torch.tensor([71, 3, 99])
    assert torch.equal(draw_view(some, 5), all_rows[some])
    assert not torch.equal(draw_view(some, 6), all_rows[some])
