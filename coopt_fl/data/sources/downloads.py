"""CIFAR-10, CIFAR-100 and Fashion-MNIST, which torchvision downloads on first use."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.cache import cache_dir, exclusive
from coopt_fl.core.errors import DataError
from coopt_fl.core.files import expanded
from coopt_fl.data.source import ArraySource, Source

_UNUSABLE = (OSError, RuntimeError, ValueError, EOFError, AssertionError)
"""Errors of torchvision's datasets if files are missing, damaged or cannot be downloaded."""

DOWNLOADS = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion_mnist": "FashionMNIST"}
"""The class of each source in ``torchvision.datasets``."""


def images(data: DataConfig, split: str) -> Source:
    """Open the images, downloading them to ``data.root`` or, by default, the cache if needed."""
    return ArraySource(data.source, np.asarray(_dataset(data, split).data)[: data.limit])


def labels(data: DataConfig, split: str) -> NDArray[np.int64]:
    """Return the classes, int64 (N,)."""
    return np.asarray(_dataset(data, split).targets, dtype=np.int64)[: data.limit]


def class_names(data: DataConfig) -> list[str]:
    """Return the names of the classes, in order."""
    return list(_dataset(data, "train").classes)


def present(data: DataConfig) -> bool:
    """Tell whether both splits are here already; download nothing."""
    try:
        for split in ("train", "test"):
            _stored(data, split, download=False)
    except _UNUSABLE:
        return False
    return True


def address(source: str) -> str:
    """Return the URL from which torchvision downloads ``source``."""
    kind = _class(source)
    return str(kind.mirrors[0] if hasattr(kind, "mirrors") else kind.url)


def to_fetch(source: str) -> str:
    """Return what to fetch by hand if ``source`` cannot be downloaded."""
    if source == "fashion_mnist":
        return "the four *-ubyte.gz files of https://github.com/zalandoresearch/fashion-mnist"
    return address(source)


def _dataset(data: DataConfig, split: str) -> Any:
    """Return torchvision's dataset; one process at a time downloads."""
    with suppress(*_UNUSABLE):  # not there yet, or another process is writing it
        return _stored(data, split, download=False)
    root = _root(data)
    try:
        with exclusive(root):
            return _stored(data, split, download=True)
    except _UNUSABLE as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        place = root / "FashionMNIST/raw" if data.source == "fashion_mnist" else root
        raise DataError(
            f"{data.source} is not in {root} and cannot be downloaded ({reason[-1]}); "
            f"fetch {to_fetch(data.source)} by hand, put it into {place}, and run again"
        ) from error


def _stored(data: DataConfig, split: str, *, download: bool) -> Any:
    """Open torchvision's dataset; raise one of ``_UNUSABLE`` if it is incomplete."""
    return _class(data.source)(_root(data), train=split == "train", download=download)


def _class(source: str) -> Any:
    from torchvision import datasets

    return getattr(datasets, DOWNLOADS[source])


def _root(data: DataConfig) -> Path:
    return expanded(data.root) if data.root else cache_dir()
