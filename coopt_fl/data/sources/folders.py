"""Image files in a tree of folders: ``ROOT/train/CLASS/...``, and ``ROOT/val`` or ``ROOT/test``."""

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from hashlib import blake2b, sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data.fingerprint import content_digest
from coopt_fl.data.source import EncodedSource, NoSplitError, Source

SUFFIXES = (b".jpg", b".jpeg", b".png", b".webp", b".bmp", b".gif", b".tif", b".tiff", b".ppm")
TEST_FOLDERS = ("val", "validation", "test")


def images(data: DataConfig, split: str) -> Source:
    """Open the tree at ``data.root``."""
    return FolderSource(data, _folder(data, split))


def labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Return int64 (N,): the place of each image's first folder among those of train.

    None where images lie outside of class folders, as in an unlabeled test split.
    """
    trained = image_paths(_folder(data, "train"))
    paths = trained if split == "train" else image_paths(_folder(data, split))
    return class_numbers(paths[: data.limit], {path.split(b"/")[0] for path in trained.tolist()})


class FolderSource(EncodedSource):
    """The image files below one folder, at any depth."""

    def __init__(
        self, data: DataConfig, folder: Path, image_size: tuple[int, int] | None = None
    ) -> None:
        self._folder = folder
        self._paths = image_paths(folder)[: data.limit]
        super().__init__(data.source, len(self._paths), image_size)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of every file's path below the folder and its bytes."""
        content = content_digest(self._folder, np.sort(self._paths).tolist())
        return sha256(f"folder {content}".encode()).hexdigest()

    def where(self, id: int) -> str:
        """Return the file's path below the folder, such as ``cat/7.jpg``."""
        return os.fsdecode(self._paths[id])

    def _bytes(self, id: int) -> bytes:
        return (self._folder / self.where(id)).read_bytes()


def image_paths(folder: Path) -> NDArray[np.bytes_]:
    """Return the paths of all images below ``folder``, as (N,) bytes; an id is a row of them.

    They are ordered by a hash of the path, so that the first rows, which ``data.limit`` keeps,
    are a fair sample of all classes, and the same on every host.

    Raises:
        DataError: the folder is missing, unreadable, or without images.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; point data.root at the folder that holds it")
    try:
        found = _walk(os.fsencode(folder))
        paths = sorted(found, key=lambda path: (blake2b(path, digest_size=8).digest(), path))
    except OSError as error:
        raise DataError(f"{error.filename!r} cannot be listed: {error.strerror}") from error
    if not paths:
        raise DataError(f"{folder} holds no images; point data.root at a folder tree with images")
    return np.array(paths)


def class_numbers(paths: NDArray[np.bytes_], classes: Iterable[bytes]) -> NDArray[np.int64] | None:
    """Return the place of each path's first folder among the sorted ``classes``.

    None where an image is in none of them.
    """
    number = {name: place for place, name in enumerate(sorted(classes))}
    firsts = [path.partition(b"/") for path in paths.tolist()]
    if any(not rest or first not in number for first, _, rest in firsts):
        return None
    return np.array([number[first] for first, _, _ in firsts], dtype=np.int64)


def _walk(top: bytes) -> Iterator[bytes]:
    """Yield the paths below ``top`` of image files that are not hidden, nor in hidden folders."""

    def fail(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(top, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(b".")]
        below = folder[len(top) + 1 :]
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith(b"."):
                yield b"%s/%s" % (below, name) if below else name


def _folder(data: DataConfig, split: str) -> Path:
    """Return the folder of a split; that of train may be missing."""
    if data.root is None:
        raise DataError(f"data.source={data.source} needs data.root=DIR, the folder of the images")
    root = Path(data.root).expanduser()
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; set data.root to the folder that holds train/")
    if split == "train":
        return root / "train"
    folders = [root / name for name in TEST_FOLDERS]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise NoSplitError(
        f"{root} has no test split; put its images in one of {', '.join(map(str, folders))}"
    )
