"""scikit-learn's handwritten digits (8x8 grey, 10 classes): the source that needs no download."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.cache import cache_dir, cached
from coopt_fl.core.errors import OutputError
from coopt_fl.data.source import ArraySource, Source

_ROW = np.dtype([("image", np.uint8, (8, 8)), ("label", np.int64)])


def images(data: DataConfig, split: str) -> Source:
    """Open the digits; their grey values 0 to 16 become 0 to 255."""
    return ArraySource(data.source, _rows(split)["image"][: data.limit])


def labels(data: DataConfig, split: str) -> NDArray[np.int64]:
    """Return the digit that each image shows, int64 (N,)."""
    return np.ascontiguousarray(_rows(split)["label"][: data.limit])


def _rows(split: str) -> NDArray[Any]:
    """Return the images and labels of a split, an array of ``_ROW``.

    They are kept in the cache: importing scikit-learn takes seconds, and every participant of a
    deployment would import it for every message.
    """
    file = cache_dir() / "digits" / f"{split}.npy"

    def make(path: Path) -> None:
        with path.open("wb") as out:
            np.save(out, _made(split))

    with suppress(OutputError):  # without a cache, this just takes longer
        return cached(file, lambda: np.load(file), make)
    return _made(split)


def _made(split: str) -> NDArray[Any]:
    """Cut the 1,797 digits into 80% train and 20% test, stratified, with seed 0."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rows = train_test_split(
        np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=0
    )[0 if split == "train" else 1]
    made = np.empty(len(rows), _ROW)
    made["image"] = np.rint(digits.images[rows] * (255 / 16))
    made["label"] = digits.target[rows]
    return made
