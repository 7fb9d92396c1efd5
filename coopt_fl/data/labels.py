"""The only access to labels, for what judges or shows a finished result.

Nothing else may import it, but :mod:`coopt_fl.data.partition`, which gives samples to participants.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.once import read_once
from coopt_fl.data.source import SPLITS, CopiedSource, NoSplitError, open_source
from coopt_fl.data.sources.classes import UNKNOWN, numbers_of_copies
from coopt_fl.registry import PARTS


def open_labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Return the labels of ``split``, or None where its images have none.

    Returns:
        int64 (N,), aligned with ``open_source(data, split).ids``; classes count from 0, and -1 is
        an image without a label, or with one that the train split lacks.

    Raises:
        NoSplitError: the source has no such split.
        DataError: the source is missing, or its images or labels cannot be read.
    """
    found = _read(data, split)
    return found if found is not None and (found >= 0).any() else None


def split_labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Like :func:`open_labels`, but return None where there is no such split.

    Raises:
        DataError: the source is missing, or its images or labels cannot be read.
    """
    try:
        return open_labels(data, split)
    except NoSplitError:
        return None


@read_once()
def unlabeled(data: DataConfig) -> list[str]:
    """Return sentences about what cannot be judged, or not all of it: nothing, if all can.

    Raises:
        DataError: see :func:`split_labels`.
    """
    said = []
    for split in SPLITS:
        try:
            found = _read(data, split)
        except NoSplitError as error:
            said.append(f"nothing is judged by labels: {error}")
            continue
        missing = 0 if found is None else int((found < 0).sum())
        if found is None or (missing and missing == len(found)):
            of_train = "" if split == "train" else " that a train image has, too"
            said.append(f"nothing is judged by labels: the {split} images have none{of_train}")
        elif missing:
            said.append(
                f"{missing:,} of {len(found):,} {split} images have no label, or one that no "
                "train image has: the probe leaves them out"
            )
        known = np.empty(0) if found is None else found[found >= 0]
        if split == "train" and len(known) and (known == known[0]).all():
            said.append(
                f"all {len(known):,} labeled train images are of one class, so that any student "
                "is right: see that the class is the first folder below the split, or choose "
                "another data.label_column"
            )
    return said


@read_once()  # to number the test split's texts, a source reads those of train
def _read(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Return the classes of a split; -1 of each that the train images lack, whatever the source."""
    found = _of_source(data, split)
    if found is None or split == "train":
        return found
    train = _of_source(data, "train")
    return None if train is None else np.where(np.isin(found, train), found, UNKNOWN)


def _of_source(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    read: Callable[..., NDArray[np.int64] | None] | None
    read = PARTS.find("source", data.source).fact("labels")
    if read is not None:
        return read(data, split)
    source = open_source(data, split)
    if isinstance(source, CopiedSource):
        train = source if split == "train" else open_source(data)
        assert isinstance(train, CopiedSource)  # for one function made both
        return numbers_of_copies(train.copied, source.copied)
    return source.given_labels
