"""The only door to labels; the probe is the only one who may open it."""

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.data.source import opener


def open_labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Return the labels of ``split``, or None where it has none.

    Returns:
        int64 (N,), aligned with ``open_source(data, split).ids``; classes count from 0.

    Raises:
        DataError: the source is missing or unreadable, or has no such split.
    """
    return opener(data, split).labels(data, split)
