"""Tiny ImageNet (200 classes, 64x64) as it is distributed; its validation images are "test"."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.files import expanded, is_folder
from coopt_fl.data.listing import BESIDE
from coopt_fl.data.source import NoSplitError, Source
from coopt_fl.data.sources.folders import FolderSource, class_numbers, images_below, no_image

SIZE = (64, 64)
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


def images(data: DataConfig, split: str) -> Source:
    """Open ``train/WNID/images/*.JPEG`` or ``val/images/*.JPEG`` below ``data.root``."""
    return FolderSource(data, _folder(data, split), SIZE, wanted=_no_image)


def labels(data: DataConfig, split: str) -> NDArray[np.int64]:
    """Return int64 (N,): the index of each image's WNID among the sorted WNIDs of train.

    It is -1 for a train image in no such folder, and a validation image that is not annotated.
    """
    folder, train = _folder(data, split), _folder(data, "train")
    skip = data.on_error == "skip"
    trained, paths = (images_below(one, _no_image, skip=skip)[0] for one in (train, folder))
    paths = paths[: data.limit]
    classes = sorted({path.split(b"/")[0] for path in trained.tolist() if b"/" in path})
    if split == "train":
        return class_numbers(paths, classes)
    file = folder.parent / "val_annotations.txt"
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); extract {URL} again") from error
    wnids = dict(line.split(b"\t")[:2] for line in lines if b"\t" in line)
    placed = [b"%s/%s" % (wnids.get(path, b""), path) for path in paths.tolist()]
    return class_numbers(np.array(placed), classes)


def _no_image(path: bytes) -> str:
    """Return why a file is no image; files of bounding boxes are left out without a note."""
    return BESIDE if path.endswith(b"_boxes.txt") else no_image(path)


def _folder(data: DataConfig, split: str) -> Path:
    root = expanded(data.root or "")
    train, test = root / "train", root / "val" / "images"
    folder = train if split == "train" else test
    if data.root and is_folder(folder, DataError):
        return folder
    kind = NoSplitError if data.root and split == "test" and train.is_dir() else DataError
    raise kind(
        f"Tiny ImageNet is not at data.root={data.root}, which must hold train/ and "
        f"val/images/; download {URL} and extract it there"
    )
