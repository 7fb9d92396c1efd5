"""CIFAR-10, CIFAR-100 and Fashion-MNIST, which torchvision downloads on first use."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.cache import cache_dir, exclusive
from coopt_fl.core.errors import DataError
from coopt_fl.data.source import Source
from coopt_fl.data.sources.arrays import ArraySource

_UNUSABLE = (OSError, RuntimeError, ValueError, EOFError, AssertionError)
"""What torchvision's datasets raise where files are missing, damaged or cannot be downloaded."""


@dataclass(frozen=True)
class Download:
    """A dataset of torchvision: its class, what to fetch by hand, and in which folder to put it."""

    kind: str
    fetch: str
    folder: str


DOWNLOADS = {
    "cifar10": Download("CIFAR10", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "."),
    "cifar100": Download(
        "CIFAR100", "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "."
    ),
    "fashion_mnist": Download(
        "FashionMNIST",
        "the four *-ubyte.gz files of https://github.com/zalandoresearch/fashion-mnist",
        "FashionMNIST/raw",
    ),
}


def images(data: DataConfig, split: str) -> Source:
    """Open the images, which are downloaded below ``data.root``, or else into the cache."""
    return ArraySource(data.source, np.asarray(_dataset(data, split).data)[: data.limit])


def labels(data: DataConfig, split: str) -> NDArray[np.int64]:
    """Return the classes, int64 (N,)."""
    return np.asarray(_dataset(data, split).targets, dtype=np.int64)[: data.limit]


def present(data: DataConfig) -> bool:
    """Return whether both splits are here already; downloads nothing."""
    try:
        for split in ("train", "test"):
            _stored(data, split, download=False)
    except _UNUSABLE:
        return False
    return True


def address(source: str) -> str:
    """Return where torchvision downloads ``source`` from."""
    kind = _class(source)
    return str(kind.mirrors[0] if hasattr(kind, "mirrors") else kind.url)


def _dataset(data: DataConfig, split: str) -> Any:
    """Return torchvision's dataset; one process at a time downloads."""
    try:
        return _stored(data, split, download=False)
    except _UNUSABLE:  # not there yet, or another process is writing it
        root, wanted = _root(data), DOWNLOADS[data.source]
        try:
            with exclusive(root):
                return _stored(data, split, download=True)
        except _UNUSABLE as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise DataError(
                f"{data.source} is not in {root} and cannot be downloaded ({reason[-1]}); "
                f"fetch {wanted.fetch} by hand, put it into {root / wanted.folder}, and run again"
            ) from error


def _stored(data: DataConfig, split: str, *, download: bool) -> Any:
    """Open torchvision's dataset, which raises one of ``_UNUSABLE`` where it is not whole."""
    return _class(data.source)(_root(data), train=split == "train", download=download)


def _class(source: str) -> Any:
    from torchvision import datasets

    return getattr(datasets, DOWNLOADS[source].kind)


def _root(data: DataConfig) -> Path:
    return Path(data.root).expanduser() if data.root else cache_dir()
