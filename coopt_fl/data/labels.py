"""The only access to labels, for modules that judge or show a finished result.

The one other module that may import it is :mod:`coopt_fl.data.partition`, which distributes samples
to participants.
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
    """Return the labels of ``split``, or None if its images have none.

    Returns:
        int64 (N,), aligned with ``open_source(data, split).ids``; classes count from 0, and -1
        stands for no label, or one that the train split lacks.

    Raises:
        NoSplitError: the source has no such split.
        DataError: the source is missing, or its images or labels cannot be read.
    """
    found = _read(data, split)
    return found if found is not None and (found >= 0).any() else None


def split_labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Like :func:`open_labels`, but return None if there is no such split.

    Raises:
        DataError: the source is missing, or its images or labels cannot be read.
    """
    try:
        return open_labels(data, split)
    except NoSplitError:
        return None


@read_once()
def unlabeled(data: DataConfig) -> list[str]:
    """Return sentences on missing or useless labels, which limit what can be judged; [] if none.

    Raises:
        DataError: see :func:`split_labels`.
    """
    notes = []
    for split in SPLITS:
        try:
            found = _read(data, split)
        except NoSplitError as error:
            notes.append(f"nothing is judged by labels: {error}")
            continue
        known = np.empty(0) if found is None else found[found >= 0]
        if not len(known) and split == "train":
            return [
                "nothing is judged by labels: the train images have none, and nothing else needs "
                f"any (docs/data.md says where data.source={data.source} has labels)"
            ]
        if found is None or not len(known):
            notes.append(
                "nothing is judged by labels: the test images have none that a train image has, too"
            )
        elif missing := len(found) - len(known):
            notes.append(
                f"{missing:,} of {len(found):,} {split} images have no label, or one that no "
                "train image has: the probe leaves them out"
            )
        if split == "train" and (known == known[0]).all():
            notes.append(
                f"all {len(known):,} labeled train images are of one class, so that any student "
                "is right: see that the class is the first folder below the split, or choose "
                "another data.label_column"
            )
    return notes


@read_once()  # to number the labels of the test split, a source reads those of train
def _read(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Return the classes of a split, -1 for those that the train images lack."""
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
        assert isinstance(train, CopiedSource)  # one function opens both splits
        return numbers_of_copies(train.copied, source.copied)
    return source.given_labels
