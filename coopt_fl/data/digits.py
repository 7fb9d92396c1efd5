"""scikit-learn's handwritten digits (8x8 grey, 10 classes): the source that needs no download."""

import numpy as np
from numpy.typing import NDArray

from coopt_fl.data.arrays import ArraySource
from coopt_fl.data.source import Source, limited
from coopt_fl.schema import DataConfig


def images(data: DataConfig, split: str) -> Source:
    """Open the digits; their grey values 0 to 16 become 0 to 255."""
    grey, _ = _split(data, split)
    return ArraySource(data.source, np.rint(grey * (255 / 16)).astype(np.uint8))


def labels(data: DataConfig, split: str) -> NDArray[np.int64]:
    """Return the digit that each image shows, int64 (N,)."""
    return _split(data, split)[1]


def _split(data: DataConfig, split: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cut the 1,797 digits into 80% train and 20% test, stratified; an id is the row after it."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rows = train_test_split(
        np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=0
    )[0 if split == "train" else 1]
    rows = rows[: limited(len(rows), data)]
    return digits.images[rows], digits.target[rows].astype(np.int64)
