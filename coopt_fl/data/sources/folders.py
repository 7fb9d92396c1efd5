"""Image files in a tree of folders: ``ROOT/train/CLASS/...``, and ``ROOT/val`` or ``ROOT/test``.

If no folder has the name of a split, ``ROOT/CLASS/...`` or ``ROOT/...``, all are train images.
"""

import os
from collections.abc import Iterable
from functools import cached_property
from hashlib import blake2b, sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.files import expanded, is_folder
from coopt_fl.data.fingerprint import content_digest
from coopt_fl.data.listing import Wanted, head, listed
from coopt_fl.data.opening import HEAD, looks_like_image
from coopt_fl.data.source import LABEL, EncodedSource, NoSplitError, Source
from coopt_fl.data.splits import split_of

SUFFIXES = (b".jpg", b".jpeg", b".png", b".webp", b".bmp", b".gif", b".tif", b".tiff", b".ppm")
SIDECARS = (b".txt", b".json", b".xml", b".csv")
"""Files that are often beside images in large numbers, and are not opened to look for an image."""

NO_IMAGE = "no image by its suffix or its first bytes"
TEST_FOLDERS = ("val", "validation", "test")

Paths = NDArray[np.bytes_]


def images(data: DataConfig, split: str) -> Source:
    """Open the tree at ``data.root``."""
    folder, others = _folders(data, split)
    return FolderSource(data, folder, others=others)


def labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Return int64 (N,): the index of each image's first folder among the sorted ones of train.

    It is -1 for an image in none of these folders. None: train has no folders.
    """
    skip, (folder, others) = data.on_error == "skip", _folders(data, split)
    train, rest = (folder, others) if split == "train" else _folders(data, "train")
    trained, _ = images_below(train, no_image, skip=skip, others=rest)
    classes = {path.split(b"/")[0] for path in trained.tolist() if b"/" in path}
    if not classes:
        return None
    paths = trained
    if split != "train":
        paths, _ = images_below(folder, no_image, skip=skip, others=others)
    return class_numbers(paths[: data.limit], classes)


class FilesSource(EncodedSource):
    """A source of image files.

    Args:
        data: gives name, limit, and whether unreadable files are skipped.
        folder: the folder that ``paths`` are relative to.
        paths: (N,) bytes, indexed by id.
        image_size: see :class:`coopt_fl.data.source.Source`.
    """

    def __init__(
        self,
        data: DataConfig,
        folder: Path,
        paths: Paths,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        self._folder, self._skip = folder, data.on_error == "skip"
        self._paths = paths[: data.limit]
        super().__init__(data.source, len(self._paths), image_size)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of every file's path below the folder and its bytes, in order."""
        content = content_digest(self._folder, self._paths.tolist(), skip=self._skip)
        return sha256(f"files {content}".encode()).hexdigest()

    def where(self, id: int) -> str:
        """Return the file's path below the folder, such as ``cat/7.jpg``."""
        return bytes(self._paths[id]).decode(errors="backslashreplace")

    def _bytes(self, id: int) -> bytes:
        return (self._folder / os.fsdecode(self._paths[id])).read_bytes()


class FolderSource(FilesSource):
    """The image files below one folder, at any depth, except those of other splits.

    Args:
        data: see :class:`FilesSource`.
        folder: the folder to look in.
        image_size: see :class:`FilesSource`.
        others: folders of other splits.
        wanted: returns why a file is left out; default: :func:`no_image`.
    """

    def __init__(
        self,
        data: DataConfig,
        folder: Path,
        image_size: tuple[int, int] | None = None,
        others: tuple[Path, ...] = (),
        wanted: Wanted | None = None,
    ) -> None:
        skip = data.on_error == "skip"
        paths, self.notes = images_below(folder, wanted or no_image, skip=skip, others=others)
        super().__init__(data, folder, paths, image_size)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of every file's path below the folder and its bytes, by path."""
        names = np.sort(self._paths).tolist()
        content = content_digest(self._folder, names, skip=self._skip)
        return sha256(f"folder {content}".encode()).hexdigest()

    def column(self, name: str) -> NDArray[np.str_] | None:
        """Return each image's first folder as its "label"."""
        if name != LABEL:
            return None
        firsts = (path.rpartition(b"/")[0].partition(b"/")[0] for path in self._paths.tolist())
        return np.array([first.decode(errors="backslashreplace") for first in firsts], np.str_)


def images_below(
    folder: Path, wanted: Wanted, *, skip: bool = False, others: tuple[Path, ...] = ()
) -> tuple[Paths, tuple[str, ...]]:
    """Return the paths of all images below ``folder``, (N,) bytes by id, and notes.

    Paths are ordered by a hash, so that the first ones, which ``data.limit`` keeps, are a fair
    sample of all classes, and the same on every host. The notes are sentences about files that were
    left out; ``others`` are folders of other splits.

    Raises:
        DataError: the folder is missing, unreadable, or without images.
    """
    if not is_folder(folder, DataError):
        raise DataError(f"{folder} is not a folder; point data.root at the folder that holds it")
    found = listed(folder, wanted, skip=skip, others=others)
    if not found.paths:
        raise DataError(
            "; ".join(
                [
                    f"{folder} holds no images",
                    *found.notes,
                    "point data.root at a folder tree with images",
                ]
            )
        )
    paths = sorted(found.paths, key=lambda path: (blake2b(path, digest_size=8).digest(), path))
    return np.array(paths), found.notes


def class_numbers(paths: Paths, classes: Iterable[bytes]) -> NDArray[np.int64]:
    """Return the index of each path's first folder among the sorted ``classes``; -1 if in none."""
    number = {name: place for place, name in enumerate(sorted(classes))}
    firsts = (path.partition(b"/") for path in paths.tolist())
    return np.array([number.get(first, -1) if rest else -1 for first, _, rest in firsts], np.int64)


def no_image(path: bytes) -> str:
    """Return why a file is no image, by its suffix and its first bytes; "" if it is one."""
    name = path.lower()
    if name.endswith(SUFFIXES):
        return ""
    if name.endswith(SIDECARS):
        return NO_IMAGE
    return "" if looks_like_image(head(path, HEAD)) else NO_IMAGE


def _folders(data: DataConfig, split: str) -> tuple[Path, tuple[Path, ...]]:
    """Return the folder of a split, and those of other splits that do not contain it.

    The train folder may be missing. A link to it does not count as a test split.
    """
    if data.root is None:
        raise DataError(f"data.source={data.source} needs data.root=DIR, the folder of the images")
    root = expanded(data.root)
    if not is_folder(root, DataError):
        raise DataError(f"{root} is not a folder; set data.root to the folder that holds train/")
    whole = data.split.train is None and is_whole(root)
    train = root if whole else root / (data.split.train or "train")
    named = [root / name for name in ([data.split.test] if data.split.test else TEST_FOLDERS)]
    real = os.path.realpath(train)
    tests = [one for one in named if is_folder(one, DataError) and os.path.realpath(one) != real]
    folder, others = train, tests
    if split != "train":
        if not tests:
            places = ", ".join(str(place) for place in named if place != train)
            rest = f", and all others in {root / 'train'}" if whole else ""
            raise NoSplitError(f"{root} has no test split; put its images in one of {places}{rest}")
        folder = next((one for one in tests if _has_class(one, train)), tests[0])
        others = [train, *tests]
    here = Path(os.path.realpath(folder))
    return folder, tuple(one for one in others if not here.is_relative_to(os.path.realpath(one)))


def is_whole(root: Path) -> bool:
    """Tell whether a folder is a single split: no folder up to two levels below is named like one.

    Raises:
        DataError: it has no ``train/``, but a folder named like another split.
    """
    if is_folder(root / "train", DataError):
        return False
    below = (path for pattern in ("*/", "*/*/") for path in root.glob(pattern))
    named = [
        path for path in below if split_of(path.name) and "/." not in f"/{path.relative_to(root)}"
    ]
    if named:
        raise DataError(
            f"{root} has no train/, but {min(named)}, whose name is that of a split: name the "
            f"folder that holds train/, or put the images to train on into {root / 'train'}"
        )
    return True


def _has_class(folder: Path, train: Path) -> bool:
    """Tell whether a folder and train have a class folder in common; else it has no labels."""
    try:
        return any(
            (train / below.name).is_dir() and below.is_dir()
            for below in folder.iterdir()
            if not below.name.startswith(".")
        )
    except OSError:  # listing the images will raise it
        return False
