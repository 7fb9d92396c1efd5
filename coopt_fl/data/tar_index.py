"""Index the images of a WebDataset tar file for random access.

Successive files whose names are equal up to the first dot are one sample; the rest of the name is
the field (https://github.com/webdataset/webdataset#the-webdataset-format).
"""

import hashlib
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core.errors import DataError

NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")
"""A sample's key, and its field."""

SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm")
CLASS = "cls"
MOST_FIELDS = 20

COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""The first bytes of gzip, bzip2, xz and Zstandard files."""

BLOCK = tarfile.BLOCKSIZE
BUFFER = 1 << 20


@dataclass(frozen=True)
class Fields:
    """The fields of a sample that are read.

    Attributes:
        image: the field of the image; None: the only one whose name is that of an image.
        label: the field of the label; None: ``cls``; ``json.KEY``: an entry of the field ``json``.
    """

    image: str | None
    label: str | None

    def image_of(self, names: list[str], where: str) -> str | None:
        """Return the field of the image among the ``names`` of a sample's fields; None if absent.

        Raises:
            DataError: several may be the image.
        """
        if self.image is not None:
            return self.image if self.image in names else None
        found = [name for name in names if name.rpartition(".")[2].lower() in SUFFIXES]
        if len(found) > 1:
            raise DataError(
                f"{where} has several images, {' and '.join(found)}; choose one by "
                "data.image_column"
            )
        return found[0] if found else None

    @property
    def text(self) -> str:
        """The field that contains the label."""
        label = self.label or CLASS
        return "json" if label.startswith("json.") else label

    def label_of(self, content: bytes) -> str:
        """Return the label in the content of the field :attr:`text`; "" if it has none."""
        if self.label is None or self.text == self.label:
            return content.decode("utf-8", "replace").strip()
        try:
            value = json.loads(content)[self.label.partition(".")[2]]
        except (ValueError, KeyError, TypeError):
            return ""
        return "" if value is None else str(value)


@dataclass(frozen=True, eq=False)
class Index:
    """The samples of one tar file that have an image.

    Attributes:
        names: keys of the samples, (N,) bytes.
        places: int64 (N, 2), offsets of the beginning and end of each image.
        texts: the labels as text, (N,) bytes in UTF-8, b"" for none.
        images: the fields in which images were found.
        fields: the first ``MOST_FIELDS`` fields or more, for errors.
        without: number of samples without an image.
        first_without: the key of the first of these.
        sha256: of the whole file.
        torn: why the file ends early; "" if it is complete.
    """

    names: NDArray[np.bytes_]
    places: NDArray[np.int64]
    texts: NDArray[np.bytes_]
    images: list[str]
    fields: list[str]
    without: int
    first_without: str
    sha256: str
    torn: str

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        arrays = [self.names, self.places, self.texts]
        rest = [self.images, self.fields, self.without, self.first_without, self.sha256, self.torn]
        with path.open("wb") as file:
            np.savez(file, *arrays, np.array(json.dumps(rest)))

    @classmethod
    def load(cls, path: Path) -> "Index":
        """Read an index from a file.

        Raises:
            OSError: there is no such file.
            ValueError: it is damaged.
        """
        try:
            with np.load(path) as held:
                *arrays, rest = (held[f"arr_{place}"] for place in range(4))
                return cls(*arrays, *json.loads(str(rest)))
        except (KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is damaged") from error


@dataclass
class Sample:
    """One sample.

    Attributes:
        key: its name.
        places: offsets of the beginning and end of each field.
        contents: the content of each field that was to be kept.
    """

    key: str
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)


class Hashed:
    """A file that is read sequentially and hashed on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sha256, self._last = file, hashlib.sha256(), b""
        self._ahead = file.read(len(COMPRESSED[-1]))
        self.compressed = self._ahead.startswith(COMPRESSED)

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``."""
        ahead, self._ahead = self._ahead, b""
        found = ahead + self._file.read(max(0, size - len(ahead)))
        self._sha256.update(found)
        self._last = (self._last + found)[-BLOCK:]
        return found

    def rest(self) -> tuple[str, bool]:
        """Read to the end; return the file's sha256 (hex), and whether it ends like a tar file."""
        while self.read(BUFFER):
            pass
        return self._sha256.hexdigest(), self._last == bytes(BLOCK)


def index_of(file: IO[bytes], where: str, fields: Fields) -> Index:
    """Read a tar file once and return its index.

    Args:
        file: the tar file, which is read sequentially.
        where: its name in errors.
        fields: the fields to read.

    Raises:
        DataError: it is compressed, or it is not clear which field is the image.
    """
    hashed, torn = Hashed(file), ""
    if hashed.compressed:
        raise DataError(
            f"{where} is compressed, but has no suffix that says so; rename it to {where}.gz"
        )
    names, texts, places = list[bytes](), list[bytes](), list[tuple[int, int]]()
    images, seen, without = dict[str, None](), dict[str, None](), list[str]()
    try:
        for sample in samples(hashed, where, lambda name, size: name == fields.text):
            if len(seen) < MOST_FIELDS:
                seen |= dict.fromkeys(sample.places)
            image = fields.image_of(list(sample.places), f"{where}, sample {sample.key},")
            if image is None:
                without.append(sample.key)
                continue
            images[image] = None
            names.append(os.fsencode(sample.key))
            places.append(sample.places[image])
            texts.append(fields.label_of(sample.contents.get(fields.text, b"")).encode())
    except tarfile.TarError as error:
        torn = str(error) or type(error).__name__
    sha256, ended = hashed.rest()
    return Index(
        np.array(names, np.bytes_),
        np.array(places, np.int64).reshape(-1, 2),
        np.array(texts, np.bytes_),
        sorted(images),
        list(seen),
        len(without),
        next(iter(without), ""),
        sha256,
        torn or ("" if ended else "its end is missing"),
    )


def samples(
    file: Any, where: str, keep: Callable[[str, int], bool], mode: str = "r|"
) -> Iterator[Sample]:
    """Yield the samples of a tar file in order.

    Args:
        file: the tar file, which is read sequentially.
        where: its name in errors.
        keep: called with a field and its size: tells whether to keep its content.
        mode: as of ``tarfile.open``; "r|*" reads compressed files, too.

    Raises:
        DataError: a sample has two fields of one name.
        tarfile.TarError: the file is damaged; the sample at that place is not yielded.
    """
    sample: Sample | None = None
    with tarfile.open(fileobj=file, mode=mode, bufsize=BUFFER) as tar:  # type: ignore[call-overload]
        for member in tar:
            matched = NAME.fullmatch(member.name)
            if matched is None or not member.isreg():
                continue
            key, name = matched.groups()
            if sample is None or key != sample.key:
                if sample is not None:
                    yield sample
                sample = Sample(key)
            if name in sample.places:
                raise DataError(f"{where} has two files {member.name}; write it again")
            sample.places[name] = member.offset_data, member.offset_data + member.size
            if keep(name, member.size):
                sample.contents[name] = tar.extractfile(member).read()
    if sample is not None:
        yield sample
