"""scikit-learn's handwritten digits (8x8 grey, 10 classes): the source that needs no download."""

import contextlib
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.cache import cache_dir
from coopt_fl.core.errors import OutputError
from coopt_fl.core.files import atomic, make_folder
from coopt_fl.data.source import Source, limited
from coopt_fl.data.sources.arrays import ArraySource


def images(data: DataConfig, split: str) -> Source:
    """Open the digits; their grey values 0 to 16 become 0 to 255."""
    grey = _split(split)["images"]
    return ArraySource(data.source, grey[: limited(len(grey), data)])


def labels(data: DataConfig, split: str) -> NDArray[np.int64]:
    """Return the digit that each image shows, int64 (N,)."""
    shown = _split(split)["labels"]
    return shown[: limited(len(shown), data)]


def _split(split: str) -> dict[str, NDArray[Any]]:
    """Return ``images`` uint8 (N, 8, 8) and ``labels`` int64 (N,); an id is a row of them.

    They are kept in the cache, for importing scikit-learn takes seconds and every participant of
    a deployment would do so for every message.
    """
    file = cache_dir() / "digits" / f"{split}.npz"
    try:
        with np.load(file) as kept:
            return dict(kept)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        made = _made(split)
    with contextlib.suppress(OutputError):  # without a cache it only takes longer
        make_folder(file.parent)
        with atomic(file) as out:
            np.savez(out, images=made["images"], labels=made["labels"])
    return made


def _made(split: str) -> dict[str, NDArray[Any]]:
    """Cut the 1,797 digits into 80% train and 20% test, stratified, with seed 0."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rows = train_test_split(
        np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=0
    )[0 if split == "train" else 1]
    return {
        "images": np.rint(digits.images[rows] * (255 / 16)).astype(np.uint8),
        "labels": digits.target[rows].astype(np.int64),
    }
