"""Images computed from their ids alone: any number of them, for tests of scale.

The class ``id % 10`` is a coarse template under heavy noise, so that a student can learn it.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.config.schema import DataConfig
from coopt_fl.data.source import SPLITS, Source

CLASSES = 10
SIDE = 8
DEFAULT_ROWS = 10_000
_PIXELS = SIDE * SIDE * 3
_WORDS = _PIXELS // 8  # 64-bit words of noise in one image
_TEMPLATE_LEVELS = 64  # noise has at most 255 - 63 levels, so their sum fits in a byte


class SyntheticSource(Source):
    """8x8 RGB images, computed when they are read."""

    def __init__(self, rows: int, split: str) -> None:
        super().__init__("synthetic", rows, (SIDE, SIDE))
        self._split = split

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what determines every image: the split and the number of rows."""
        return hashlib.sha256(f"synthetic 1 {self._split} {len(self)}".encode()).hexdigest()

    def _read(self, ids: NDArray[np.int64]) -> list[Tensor]:
        pixels = _templates()[ids % CLASSES] + _noise(ids, SPLITS.index(self._split))
        return list(torch.from_numpy(pixels.reshape(-1, 3, SIDE, SIDE)))


def images(data: DataConfig, split: str) -> Source:
    """Open ``data.limit`` train images (default 10,000) or a fifth as many test images."""
    return SyntheticSource(_rows(data, split), split)


def labels(data: DataConfig, split: str) -> NDArray[np.int64]:
    """Return the planted classes, int64 (N,)."""
    return np.arange(_rows(data, split), dtype=np.int64) % CLASSES


def _rows(data: DataConfig, split: str) -> int:
    rows = DEFAULT_ROWS if data.limit is None else data.limit
    return rows if split == "train" else max(1, rows // 5)


def _templates() -> NDArray[np.uint8]:
    """Return (10, 192): per class and channel, 4x4 patches of 2x2 equal pixels, below 64."""
    patches = np.arange(CLASSES * 3 * 16, dtype=np.uint64)
    coarse = (_mix(patches) & np.uint64(_TEMPLATE_LEVELS - 1)).astype(np.uint8)
    return coarse.reshape(-1, 3, 4, 4).repeat(2, axis=2).repeat(2, axis=3).reshape(CLASSES, -1)


def _noise(ids: NDArray[np.int64], stream: int) -> NDArray[np.uint8]:
    """Return (B, 192) levels from 0 to 192 that depend only on id, pixel and stream."""
    # Words from 512 on, since the templates use those below.
    first = (ids.astype(np.uint64) * np.uint64(len(SPLITS)) + np.uint64(stream + 2)) << np.uint64(8)
    places: NDArray[np.uint64] = np.arange(_WORDS, dtype=np.uint64)
    words = _mix(np.add(first[:, None], places, dtype=np.uint64))
    levels = words.astype("<u8").view(np.uint8).reshape(len(ids), _PIXELS)
    return levels - (levels >> np.uint8(2))


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash 64-bit words; the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    words = words * np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
