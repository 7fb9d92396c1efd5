"""What can be known of the data before any work: what cannot be judged, and what cannot be read."""

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
"""How long test images are decoded before the work; most test splits take less."""

ROWS = 16
"""Images that are decoded between two looks at the clock."""


def tell_doubts(data: DataConfig, progress: Progress, train: Source | None = None) -> None:
    """Say, before any work, what of the data cannot be judged, and what was found beside them.

    Args:
        data: Where the images and labels are.
        progress: Told of it.
        train: The images to train on, where they are open: a large folder takes seconds.

    Raises:
        DataError: Labels cannot be read.
    """
    with read_once():
        notes = list((train or open_source(data)).notes)
        with suppress(NoSplitError):  # which is among what cannot be judged
            notes += open_source(data, "test").notes
        said = unlabeled(data)
    for sentence in [*dict.fromkeys(notes), *said]:
        progress.warn(sentence)


@read_once()
def check_data(
    data: DataConfig, limit: int | None, progress: Progress, train: Source | None = None
) -> None:
    """Call :func:`tell_doubts` and :func:`require_readable`, and read what both need once."""
    tell_doubts(data, progress, train)
    require_readable(data, limit, progress)


def require_readable(data: DataConfig, limit: int | None, progress: Progress) -> None:
    """Decode the images that students will be judged on before any work, as many as fit into 5 s.

    They come in a seeded random order. How many fit depends on the host; where a source first makes
    a copy of its split, as Parquet files do, that takes longer.

    Args:
        data: Where the images are.
        limit: See :class:`coopt_fl.students.probe.Judge`.
        progress: Told how many are left out, and how many were not looked at.

    Raises:
        DataError: One of them cannot be read, and ``data.on_error`` is not "skip"; or none can.
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
