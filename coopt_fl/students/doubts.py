"""Checks of the data before any work: which labels are missing, and which images unreadable."""

import time
from contextlib import closing, suppress

import numpy as np

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.once import read_once
from coopt_fl.core.progress import Progress
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import Source, batches, open_source, unlabeled
from coopt_fl.data.source import CorruptImage, NoSplitError
from coopt_fl.students.probe import open_splits

SECONDS = 5.0
"""Longest time that decoding test images before the work may take; most splits take less."""

ROWS = 16
"""Images decoded between two checks of the time."""


def tell_doubts(data: DataConfig, progress: Progress, train: Source | None = None) -> None:
    """Warn, before any work, about missing labels and about what opening the sources noticed.

    Args:
        data: Where the images and labels are.
        progress: Shows the warnings.
        train: The images to train on, if they are open already: opening a large folder takes
            seconds.

    Raises:
        DataError: Labels cannot be read.
    """
    with read_once():
        notes = list((train or open_source(data)).notes)
        with suppress(NoSplitError):  # unlabeled() warns of a missing test split
            notes += open_source(data, "test").notes
        said = unlabeled(data)
    for sentence in [*dict.fromkeys(notes), *said]:
        progress.warn(sentence)


@read_once()
def check_data(
    data: DataConfig, limit: int | None, progress: Progress, train: Source | None = None
) -> None:
    """Call :func:`tell_doubts` and :func:`require_readable`; files that both need are read once."""
    tell_doubts(data, progress, train)
    require_readable(data, limit, progress)


def require_readable(data: DataConfig, limit: int | None, progress: Progress) -> None:
    """Decode test images for up to 5 seconds, so that unreadable ones are found before any work.

    The images come in a seeded random order. How many are decoded depends on the host. A source
    that first copies its split, as Parquet files do, takes longer than 5 seconds.

    Args:
        data: Where the images are.
        limit: See :class:`coopt_fl.students.probe.Judge`.
        progress: Shows how many images are unreadable and how many were not decoded.

    Raises:
        DataError: An image cannot be read and ``data.on_error`` is not "skip", or none can be read.
    """
    splits = open_splits(data, limit)
    if len(splits) < 2 or not splits[1].source.encoded:
        return
    source, ids = splits[1].source, splits[1].ids
    order = np.random.default_rng(derive_seed(0, "readable")).permutation(ids)
    began, seen, skipped = time.monotonic(), 0, 0
    try:
        with closing(batches(source, [order], ROWS, data.on_error, workers=0)) as read:
            for batch in read:
                seen += len(batch.ids) + len(batch.skipped)
                skipped += len(batch.skipped)
                if time.monotonic() - began > SECONDS:
                    break
    except CorruptImage as error:
        raise DataError(f"no student could be judged by the test images: {error}") from error
    if skipped == len(ids):
        raise DataError(
            f"no student could be judged: none of the {len(ids):,} labeled test images can be "
            "read; see data.root and data.split.test"
        )
    if skipped:
        progress.warn(f"{skipped:,} of {seen:,} test images cannot be read, and are left out")
    if seen < len(ids):
        progress.say(
            f"{seen:,} of {len(ids):,} test images were decoded to see whether they can be read; "
            "the others are when the student is judged"
        )
