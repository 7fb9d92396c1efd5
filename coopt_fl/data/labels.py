"""The only access to labels. Only what judges or shows a finished result may import it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.data.source import NoSplitError, open_source
from coopt_fl.registry import PARTS


def open_labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Return the labels of ``split``, or None where its images have none.

    Returns:
        int64 (N,), aligned with ``open_source(data, split).ids``; classes count from 0.

    Raises:
        NoSplitError: the source has no such split.
        DataError: the source is missing, or its images or labels cannot be read.
    """
    read: Callable[..., NDArray[np.int64] | None] | None
    read = PARTS.find("source", data.source).fact("labels")
    return read(data, split) if read is not None else open_source(data, split).given_labels


def split_labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Like :func:`open_labels`, but return None where there is no such split.

    Raises:
        DataError: the source is missing, or its images or labels cannot be read.
    """
    try:
        return open_labels(data, split)
    except NoSplitError:
        return None
