"""Tiny ImageNet (200 classes, 64x64) as it is distributed; its validation images are "test"."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data.source import Source
from coopt_fl.data.sources.folders import FolderSource, class_numbers, image_paths

SIZE = (64, 64)
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


def images(data: DataConfig, split: str) -> Source:
    """Open ``train/WNID/images/*.JPEG`` or ``val/images/*.JPEG`` below ``data.root``."""
    folder = _folder(data, split)
    return FolderSource(data.source, folder, image_paths(folder, data), SIZE)


def labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Return int64 (N,): the place of each image's WNID among the sorted WNIDs of train."""
    folder = _folder(data, split)
    paths = image_paths(folder, data)
    train = _folder(data, "train")
    classes = sorted(entry.name.encode() for entry in train.iterdir() if entry.is_dir())
    if split == "train":
        return class_numbers(paths, classes)
    wnids = _annotations(folder.parent / "val_annotations.txt")
    try:
        return np.array([classes.index(wnids[path]) for path in paths.tolist()], dtype=np.int64)
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{folder.parent / 'val_annotations.txt'} does not tell the class of every image in "
            f"{folder}; extract {URL} again"
        ) from error


def _annotations(file: Path) -> dict[bytes, bytes]:
    """Return the WNID of each validation image."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); extract {URL} again") from error
    return dict(line.split(b"\t")[:2] for line in lines if b"\t" in line)


def _folder(data: DataConfig, split: str) -> Path:
    root = Path(data.root).expanduser() if data.root else None
    folder = root and (root / "train" if split == "train" else root / "val" / "images")
    if folder is None or not folder.is_dir():
        raise DataError(
            f"Tiny ImageNet is not at data.root={data.root}, which must hold train/ and "
            f"val/images/; download {URL} and extract it there"
        )
    return folder
