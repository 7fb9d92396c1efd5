"""Random numbers of a sample's view: a function of seed and row, not of batch or device."""

import torch
from torch import Tensor

DRAWS = 14
"""Uniform numbers that one view of one sample takes."""

MASK = (1 << 64) - 1


def draw_view(rows: Tensor, seed: int) -> Tensor:
    """Return float32 (B, DRAWS), uniform in [0, 1), on the device of ``rows``.

    Args:
        rows: int64 (B,): the samples' rows of the dataset.
        seed: Of this view in this epoch.
    """
    columns = torch.arange(1, DRAWS + 1, device=rows.device)
    counter = rows.long()[:, None] * DRAWS + columns
    mixed = _mix(_mix(counter * _signed(0x9E3779B97F4A7C15) + _signed(seed)))
    return (_shifted(mixed, 40)).to(torch.float32) / (1 << 24)


def _mix(x: Tensor) -> Tensor:
    """Return the finaliser of SplitMix64 (Steele, Lea, Flood 2014) of int64 x, modulo 2^64."""
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Return x >> bits as of an unsigned number; torch repeats the sign."""
    return (x >> bits) & (MASK >> bits)


def _signed(value: int) -> int:
    value &= MASK
    return value - (1 << 64) if value >> 63 else value
