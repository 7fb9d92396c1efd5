"""The base classes of sources: one split of images with stable ids, without labels."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.config.schema import MOST_PIXELS, DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data.image import UndecodableError, decode, decoder
from coopt_fl.data.on_gpu import decode_on_gpu, gpu_decoder, require_gpu
from coopt_fl.data.stream import Copied, Stream, copy_stream, find_copy
from coopt_fl.registry import PARTS

SPLITS = ("train", "test")

LABEL = "label"
"""The name of an image's class for :meth:`Source.column`."""


def open_source(data: DataConfig, split: str = "train") -> "Source":
    """Open the images of ``split`` ("train" or "test") by the settings in ``data``.

    Raises:
        ConfigError: there is no such source.
        DataError: the source is missing, empty, unreadable, or has no such split.
    """
    part = PARTS.find("source", data.source)
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    source = part.call(data, split)
    if source is None:
        raise NoSplitError(f"data.source={data.source} has no {split} split")
    if isinstance(source, Stream):
        source = CopiedSource(data, source.name, find_copy(source, data, split))
    if not isinstance(source, Source):
        raise DataError(
            f"data.source={data.source} must give a Source, such as "
            f"coopt_fl.data.from_arrays(images, labels), not {type(source).__name__}"
        )
    if isinstance(source, EncodedSource):
        source.decoding, source.max_pixels = data.decode, data.max_pixels
    return source


def copy_streams(data: DataConfig, tell: Callable[[str, int], None]) -> None:
    """Copy streams, which can only be read sequentially, so that :func:`open_source` opens them.

    Args:
        data: the settings of the source; other sources than streams are not copied.
        tell: called with the split and the number of images copied.

    Raises:
        DataError: it cannot be read.
        OutputError: there is no room in the cache.
    """
    part = PARTS.find("source", data.source)
    for split in SPLITS:
        with suppress(NoSplitError):
            found = part.call(data, split)
            if isinstance(found, Stream):
                copy_stream(found, data, split, partial(tell, split))


class NoSplitError(DataError):
    """The source is there, but has no such split."""


class CorruptImage(DataError):  # noqa: N818 - a kind of DataError, named for what it is about
    """One image cannot be read or decoded; ``id`` and ``where`` name it."""

    def __init__(
        self, id: int, where: str, reason: str = "it cannot be decoded", advice: str = ""
    ) -> None:
        super().__init__(id, where, reason, advice)  # the arguments, so that it survives pickling
        self.id, self.where, self.reason, self.advice = id, where, reason, advice

    def __str__(self) -> str:
        what = "is not read" if self.advice else "is corrupt"
        return (
            f"image {self.where} (id {self.id}) {what}: {self.reason}; "
            f"{self.advice or 'repair or remove it'}, or set data.on_error=skip"
        )


class Source(ABC):
    """One split of N unlabeled images.

    Attributes:
        name: the source's name in the configuration, such as ``"digits"``.
        ids: int64 (N,), ascending; an id is the image's row in the full split, so a limit
            leaves the ids of the remaining images as they were.
        encoded: whether images must be decoded (JPEG, PNG), so that worker processes pay off.
        image_size: (height, width) if all images of this source have the same size, else None.
        given_labels: int64 (N,), if passed from Python; for ``open_labels`` alone.
        notes: sentences about files that were left out.
    """

    encoded = False
    notes: tuple[str, ...] = ()
    given_labels: NDArray[np.int64] | None = None

    def __init__(self, name: str, rows: int, image_size: tuple[int, int] | None = None) -> None:
        self.name = name
        self.ids: NDArray[np.int64] = np.arange(rows, dtype=np.int64)
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.ids)

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the split's content: the same on every host."""

    @property
    def decoder(self) -> str:
        """The libraries that decode the images here, which affect pixels; "" if not encoded."""
        return ""

    def read(self, ids: NDArray[np.int64]) -> list[Tensor]:
        """Return the images of ``ids``, in that order.

        Returns:
            One uint8 RGB tensor (3, H, W) per id; grey images have three equal channels.

        Raises:
            CorruptImage: an image cannot be decoded; the first one is named.
            DataError: an id is not in this source, or one of its files is gone.
        """
        wrong = ids[(ids < 0) | (ids >= len(self))]
        if len(wrong):
            raise DataError(
                f"id {wrong[0]} is not in source {self.name}, which has ids 0 to {len(self) - 1}; "
                "check that data.limit is the same everywhere"
            )
        return self._read(ids)

    def for_edge(self, edge: int) -> "Source":
        """Return this source for a reader that shrinks images to ``edge`` pixels or fewer.

        Unless ``data.decode`` is "exact", larger images may then be decoded at a reduced size.
        """
        return self

    def column(self, name: str) -> NDArray[np.str_] | None:
        """Return the values (N,) of the column ``name``, "" for missing ones; None: no such column.

        Used by ``assignment.partition=column:NAME``. A source with further columns overrides this;
        "label" works for every source with labels, even if it does not.

        Raises:
            DataError: the column cannot be read, or holds neither text nor numbers.
        """
        return None

    def where(self, id: int) -> str:
        """Return where a person finds the image ``id``, for messages."""
        return f"{self.name} row {id}"

    @abstractmethod
    def _read(self, ids: NDArray[np.int64]) -> list[Tensor]: ...


class ArraySource(Source):
    """Images of one size, held as uint8 (N, H, W) for grey or (N, H, W, 3) for RGB."""

    def __init__(self, name: str, images: NDArray[np.uint8]) -> None:
        height, width = images.shape[1:3]
        super().__init__(name, len(images), (height, width))
        self._images = images

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the array's shape and bytes."""
        digest = hashlib.sha256(f"array {self._images.shape}".encode())
        digest.update(np.ascontiguousarray(self._images).data)
        return digest.hexdigest()

    def _read(self, ids: NDArray[np.int64]) -> list[Tensor]:
        images = torch.from_numpy(self._images[ids])  # (B, H, W) or (B, H, W, 3), a copy
        if images.ndim == 3:
            return list(images.unsqueeze(1).expand(-1, 3, -1, -1))
        return list(images.permute(0, 3, 1, 2))


class EncodedSource(Source):
    """A source whose images are image files, of any sizes unless ``image_size`` is given.

    Attributes:
        decoding: see ``data.decode``.
        max_pixels: see ``data.max_pixels``.
    """

    encoded = True
    decoding = "exact"
    max_pixels = MOST_PIXELS
    _edge: int | None = None

    @property
    def decoder(self) -> str:
        """The libraries that decode its images here."""
        return f"{gpu_decoder()}, {decoder()}" if self.decoding == "device" else decoder()

    def for_edge(self, edge: int) -> "EncodedSource":
        """Return this source, or one that decodes by ``data.decode`` for images of ``edge`` pixels.

        Raises:
            ConfigError: ``data.decode`` is "device", and there is no GPU.
        """
        if self.decoding == "exact":
            return self
        other = copy(self)
        if self.decoding == "device":
            require_gpu()
            other.encoded = False  # no worker processes, which have no GPU
        else:
            other._edge = edge
        return other

    def file_bytes(self, id: int) -> bytes:
        """Return the bytes of the image's file.

        Raises:
            CorruptImage: it cannot be read.
        """
        try:
            return self._bytes(id)
        except OSError as error:
            reason = error.strerror or "it cannot be read"
            raise CorruptImage(id, self.where(id), reason) from error

    def _read(self, ids: NDArray[np.int64]) -> list[Tensor]:
        if not self.encoded:
            return self._read_on_gpu(ids)
        images = []
        for id in ids.tolist():
            try:
                images.append(decode(self.file_bytes(id), self._edge, self.max_pixels))
            except UndecodableError as error:
                raise CorruptImage(id, self.where(id), str(error), error.advice) from error
        return images

    def _read_on_gpu(self, ids: NDArray[np.int64]) -> list[Tensor]:
        try:
            return decode_on_gpu([self.file_bytes(id) for id in ids.tolist()], self.max_pixels)
        except UndecodableError as error:
            if len(ids) > 1:  # read them one by one, to find the corrupt one
                return [image for id in ids for image in self._read_on_gpu(id[None])]
            id = int(ids[0])
            raise CorruptImage(id, self.where(id), str(error), error.advice) from error

    @abstractmethod
    def _bytes(self, id: int) -> bytes:
        """Return the file's bytes; an OSError says that this one image cannot be read."""


class CopiedSource(EncodedSource):
    """A stream, read from its copy.

    Args:
        data: gives the source's name.
        stream: the stream's name.
        copied: its copy.
    """

    def __init__(self, data: DataConfig, stream: str, copied: Copied) -> None:
        super().__init__(data.source, len(copied.texts))
        self.copied, self._stream = copied, stream

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all images."""
        return self.copied.sha256

    def where(self, id: int) -> str:
        """Return the stream and the row in it."""
        return f"{self._stream} row {id}"

    def _bytes(self, id: int) -> bytes:
        return self.copied.images[id]
