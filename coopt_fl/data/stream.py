"""Streams: images that can only be read sequentially, whereas a run reads images in any order.

A stream is copied once, by ``coopt publish-shards``, and then read from the copy.
"""

import hashlib
import io
import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.cache import cache_dir, cached
from coopt_fl.core.errors import DataError
from coopt_fl.data.flat import FlatCopy, write_flat
from coopt_fl.data.image import rgb

IMAGES, ABOUT = "images", "about.npz"
"""The files of a copy."""

Rows = Callable[[], Iterable[tuple[Any, Any]]]
"""Yields (image, label) from the beginning. An image is the bytes of an image file, Hugging Face's
``{"bytes": ...}``, or a PIL image; a label is a whole number, a text, or None."""


@dataclass(frozen=True)
class Stream:
    """What a source returns for images that can only be read sequentially.

    Attributes:
        rows: see :data:`Rows`.
        name: its name in messages.
        version: changes when the images do, as far as that can be known.
    """

    rows: Rows
    name: str
    version: str = ""


@dataclass(frozen=True, eq=False)
class Copied:
    """The copy of a stream.

    Attributes:
        images: the image files, with random access.
        texts: the labels as text, (N,) bytes in UTF-8, b"" for none.
        sha256: of all images.
    """

    images: FlatCopy
    texts: NDArray[np.bytes_]
    sha256: str


def find_copy(stream: Stream, data: DataConfig, split: str) -> Copied:
    """Return the copy of a stream.

    Raises:
        DataError: there is none; the message says how to make one.
    """
    try:
        return _load(_place(stream, data, split))
    except (OSError, ValueError):
        raise DataError(
            f"{stream.name} can only be read from its beginning on, and a run reads images in any "
            f"order: copy them first by `coopt publish-shards parquet {_settings(data)} --out DIR`"
        ) from None


def copy_stream(stream: Stream, data: DataConfig, split: str, tell: Callable[[int], None]) -> None:
    """Copy a stream into the cache, unless it has been copied.

    Args:
        stream: the images.
        data: the settings of the source; with a limit, only the first rows are copied.
        split: the split of the images.
        tell: called with the number of images copied.

    Raises:
        DataError: it cannot be read, or is empty.
        OutputError: there is no room.
    """
    place = _place(stream, data, split)

    def make(folder: Path) -> None:
        folder.mkdir()
        total, texts = hashlib.sha256(b"stream"), list[bytes]()

        def images() -> Iterator[bytes]:
            for image, label in islice(stream.rows(), data.limit):
                content = _file(image, f"{stream.name} row {len(texts)}")
                total.update(hashlib.sha256(content).digest())
                texts.append(b"" if label is None else str(label).encode())
                yield content
                tell(len(texts))

        if not write_flat(folder / IMAGES, images()):
            raise DataError(f"{stream.name} holds no images of the {split} split")
        with (folder / ABOUT).open("wb") as file:
            np.savez(file, np.array(texts, np.bytes_), np.array(total.hexdigest()))

    cached(place, lambda: _load(place), make)


def _load(place: Path) -> Copied:
    with np.load(place / ABOUT) as held:
        texts, sha256 = held["arr_0"], str(held["arr_1"])
    return Copied(FlatCopy(place / IMAGES, len(texts)), texts, sha256)


def _place(stream: Stream, data: DataConfig, split: str) -> Path:
    """Return the folder of a copy, named by a digest of everything that it depends on."""
    part = asdict(data)
    kept = ("source", "root", "limit", "image_column", "label_column", "split")
    read = {key: part[key] for key in kept}
    text = json.dumps([read, split, stream.name, stream.version], sort_keys=True)
    return cache_dir() / "streams" / hashlib.sha256(text.encode()).hexdigest()


def _settings(data: DataConfig) -> str:
    """Return the settings of the images as arguments of a command."""
    kept = ("source", "root", "limit", "image_column", "label_column")
    settings = {f"data.{key}": getattr(data, key) for key in kept}
    settings |= {f"data.split.{key}": value for key, value in asdict(data.split).items()}
    return " ".join(
        shlex.quote(f"{key}={value}") for key, value in settings.items() if value is not None
    )


def _file(image: Any, where: str) -> bytes:
    """Return the bytes of an image's file."""
    if isinstance(image, dict):
        image = image.get("bytes")
    if isinstance(image, Image.Image):
        out = io.BytesIO()
        Image.fromarray(rgb(image)).save(out, "PNG")
        return out.getvalue()
    if isinstance(image, bytes) or image is None:
        return image or b""
    raise DataError(
        f"{where} is {type(image).__name__}; an image must be the bytes of a file, a dictionary "
        "{'bytes': ...}, or a PIL image"
    )
