"""WebDataset tar shards: a folder, one file, or a URL such as ``s3://DIR/x-{000..099}.tar``.

The first time, each shard is read once to its end, and an index of its images is cached. From then
on any image is read directly; from a URL, only the bytes of that image.
"""

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coopt_fl.config.places import is_url
from coopt_fl.config.schema import DataConfig
from coopt_fl.core import remote
from coopt_fl.core.cache import cache_dir, cached
from coopt_fl.core.errors import DataError
from coopt_fl.core.files import expanded, is_file
from coopt_fl.core.once import once
from coopt_fl.data.listing import BESIDE
from coopt_fl.data.source import LABEL, EncodedSource, Source
from coopt_fl.data.sources.classes import numbers_of_copies, numbers_of_texts
from coopt_fl.data.split_files import Files, below, choose, is_named
from coopt_fl.data.stream import Stream, find_copy
from coopt_fl.data.tar_index import CLASS, SUFFIXES, Fields, Index, index_of, samples

TAR = ".tar"
TARS = (TAR, ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
NO_TAR = "no tar file by its suffix"
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
"""A range of numbers, expanded as in shells."""

THREADS = 8
"""Shards that are indexed in parallel."""


def images(data: DataConfig, split: str) -> Source | Stream:
    """Open the shards of a split; shards that can only be read sequentially become a stream."""
    shards = once(repr(data), lambda: Shards(data))
    found = shards.of(split)
    if shards.streamed(found.names):
        return shards.stream(found, split)
    indexes, notes = shards.indexes(found.names), found.notes
    found = replace(found, names=found.names[: len(indexes)])
    fields = dict.fromkeys(name for index in indexes for name in index.fields)
    if not sum(len(index.names) for index in indexes):
        wanted = f" called {data.image_column}" if data.image_column else ""
        raise DataError(
            f"no sample of the {split} shards in {data.root} has an image{wanted}, but "
            f"{', '.join(fields) or 'nothing'}; choose one by data.image_column"
        )
    for name, index in zip(found.names, indexes, strict=True):
        if index.torn:
            notes += (f"{name} is torn after {len(index.names):,} images ({index.torn})",)
    if without := [index for index in indexes if index.without]:
        count, first = sum(index.without for index in without), without[0].first_without
        notes += (f"in {data.root}, {count:,} left out: samples without an image ({first})",)
    source = TarSource(data, found, indexes)
    others = [name for name in fields if name not in source.fields]
    if others and not any(index.texts.any() for index in indexes) and data.label_column is None:
        notes += (f"labels may be in {' or '.join(others)}: choose one by data.label_column",)
    source.notes = notes
    return source


def labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Return the labels, int64 (N,), numbered by :func:`classes.numbers_of_texts`."""
    shards = once(repr(data), lambda: Shards(data))
    mine, train = shards.of(split), shards.of("train")
    if shards.streamed(mine.names):
        streams = shards.stream(train, "train"), shards.stream(mine, split)
        of_train, copied = (
            find_copy(one, data, name) for one, name in zip(streams, ("train", split), strict=True)
        )
        found = numbers_of_copies(of_train, copied)
    else:
        found = shards.numbers(train.names, mine.names)
    if data.label_column and split == "train" and found is None:
        raise DataError(
            f"no train sample in {data.root} has data.label_column={data.label_column}; write the "
            "field as it is in the shards, such as cls, or json.KEY for an entry of json"
        )
    return found


def has_tar(path: Path) -> bool:
    """Tell whether a path has the suffix of a tar file."""
    return path.name.lower().endswith(TARS)


class TarSource(EncodedSource):
    """The samples with an image in some shards, one shard after the other.

    Args:
        data: gives the name and the limit of the source.
        found: the shards.
        indexes: the index of each shard.
    """

    def __init__(self, data: DataConfig, found: Files, indexes: Sequence[Index]) -> None:
        self._data, self._shards = data, found
        self._ends = np.cumsum([len(index.names) for index in indexes])
        rows = int(self._ends[-1])
        super().__init__(data.source, min(rows, data.limit or rows))
        self._keys = np.concatenate([index.names for index in indexes])[: len(self)]
        self._spans = np.concatenate([index.places for index in indexes])[: len(self)]
        self.fields = sorted({name for index in indexes for name in index.images})
        sums = [[name, index.sha256] for name, index in zip(found.names, indexes, strict=True)]
        identity = json.dumps([len(self), self.fields, sums])
        self._fingerprint = hashlib.sha256(f"webdataset {identity}".encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the shards' names and contents, and of the samples and fields used."""
        return self._fingerprint

    def column(self, name: str) -> NDArray[np.str_] | None:
        """Return a field (N,) as text, such as ``cls`` or ``json.site``; None if no sample has it.

        This reads the shards to their end, once.
        """
        if name == LABEL:  # the field of the labels
            name = self._data.label_column or CLASS
        chosen = None if name == CLASS else name
        indexes = Shards(replace(self._data, label_column=chosen)).indexes(self._shards.names)
        texts = [text.decode() for index in indexes for text in index.texts.tolist()][: len(self)]
        return np.array(texts, np.str_) if any(texts) else None

    def where(self, id: int) -> str:
        """Return the shard and the sample in it, such as ``train-000.tar sample 0017``."""
        return f"{self._shards.names[self._place(id)]} sample {os.fsdecode(self._keys[id])}"

    def _place(self, id: int) -> int:
        return int(np.searchsorted(self._ends, id, side="right"))

    def _bytes(self, id: int) -> bytes:
        start, stop = self._spans[id].tolist()
        place = _joined(self._shards, self._shards.names[self._place(id)])
        if is_url(place):
            return remote.part(place, start, stop)
        with Path(place).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)


class Shards:
    """All shards of a configuration; each is indexed once.

    Raises:
        DataError: there are none, or they cannot be listed.
    """

    def __init__(self, data: DataConfig) -> None:
        self._data, self._skip = data, data.on_error == "skip"
        self._fields = Fields(data.image_column, data.label_column)
        self._every = _every(data)
        self._known: dict[str, Index] = {}

    def of(self, split: str) -> Files:
        """Return the shards of a split; see :func:`coopt_fl.data.split_files.choose`."""

        def known(train: list[str], names: list[str]) -> bool:
            return self.streamed(names) or self.numbers(train, names) is not None

        return choose(self._every, self._data, split, TAR, known)

    def streamed(self, names: list[str]) -> bool:
        """Tell whether shards can only be read sequentially."""
        first = _joined(self._every, names[0])
        compressed = not all(name.lower().endswith(TAR) for name in names)
        return compressed or (is_url(first) and not remote.in_parts(first))

    def indexes(self, names: list[str]) -> list[Index]:
        """Return the index of each shard, in order, until they have ``data.limit`` samples."""
        found, rows = list[Index](), 0
        with ThreadPoolExecutor(THREADS) as threads:
            for start in range(0, len(names), THREADS):
                for index in threads.map(self._index, names[start : start + THREADS]):
                    if self._data.limit is None or rows < self._data.limit:
                        found.append(index)
                        rows += len(index.names)
                if self._data.limit is not None and rows >= self._data.limit:
                    break
        return found

    def numbers(self, train: list[str], names: list[str]) -> NDArray[np.int64] | None:
        """Return the classes in shards, int64 (N,)."""

        def texts(some: list[str]) -> Any:
            rows = [text for index in self.indexes(some) for text in index.texts.tolist()]
            return pa.array(rows[: self._data.limit], pa.string())

        of_train, mine = {"the train shards": texts(train)}, {"the shards": texts(names)}
        return numbers_of_texts(of_train, mine, self._fields.text)

    def stream(self, found: Files, split: str) -> Stream:
        """Return shards that can only be read sequentially."""
        places = [_joined(found, name) for name in found.names]
        versions = [] if is_url(found.root) else [remote.version(place) for place in places]
        name = f"{places[0]}" if len(places) == 1 else f"{places[0]} and {len(places) - 1} more"
        return Stream(partial(self._rows, places), name, json.dumps([places, versions]))

    def _rows(self, places: list[str]) -> Iterator[tuple[bytes, str]]:
        """Yield the image and the label of each sample that has an image."""
        fields = self._fields

        def keep(name: str, _: int) -> bool:
            suffix = name.rpartition(".")[2].lower()
            return suffix in SUFFIXES or name in (fields.image, fields.text)

        for place in places:
            with remote.stream(place) as file:
                try:
                    for sample in samples(file, place, keep, "r|*"):
                        image = fields.image_of(list(sample.places), place)
                        if image is not None:
                            label = fields.label_of(sample.contents.get(fields.text, b""))
                            yield sample.contents[image], label
                except tarfile.TarError as error:
                    if not self._skip:
                        raise _torn(place, error) from error

    def _index(self, name: str) -> Index:
        if name not in self._known:
            place = _joined(self._every, name)
            identity = json.dumps([place, remote.version(place), vars(self._fields)])
            key = hashlib.sha256(identity.encode()).hexdigest()
            path = cache_dir() / "webdataset" / key / "index.npz"

            def make(path: Path) -> None:
                with remote.stream(place) as file:
                    index_of(file, name, self._fields).save(path)

            self._known[name] = cached(path, lambda: Index.load(path), make)
        found = self._known[name]
        if found.torn and not self._skip:
            raise _torn(name, found.torn)
        return found


def _torn(where: str, reason: object) -> DataError:
    return DataError(
        f"{where} cannot be read to its end ({reason}); fetch it again, or set data.on_error=skip "
        "to use what is before"
    )


def _every(data: DataConfig) -> Files:
    """Return all shards."""
    root = data.root or ""
    if is_url(root):
        return _at_url(root, data)
    path = expanded(root)
    if is_file(path, DataError):
        return Files(str(path.parent), [path.name])
    return below(data, partial(_left_out, data.on_error == "skip"), TAR)


def _at_url(url: str, data: DataConfig) -> Files:
    """Return the shards at a URL: a single one, those that match a pattern, or all below it."""
    if not url.lower().endswith(TARS):
        names = [name for name in remote.below(url) if name.lower().endswith(TARS)]
        flat = [name for name in names if "/" not in name and is_named(name, data.split)]
        names = [name for name in names if "/" not in name] if flat else names
        return _some(Files(url.rstrip("/"), names))
    root = re.split(r"[*{]", url)[0].rpartition("/")[0]
    pattern = url.removeprefix(f"{root}/")
    if "*" in pattern:
        return _some(Files(root, [one for one in remote.below(root) if fnmatch(one, pattern)]))
    return Files(root, _expanded(pattern))


def _some(found: Files) -> Files:
    if not found.names:
        raise DataError(f"there are no tar files at {remote.shown(found.root)}; check data.root")
    return found


def _expanded(pattern: str) -> list[str]:
    """Return the names that a pattern with ranges of numbers expands to."""
    matched = RANGE.search(pattern)
    if matched is None:
        return [pattern]
    first, last = matched.groups()
    start, stop = matched.span()
    return [
        name
        for number in range(int(first), int(last) + 1)
        for name in _expanded(f"{pattern[:start]}{number:0{len(first)}}{pattern[stop:]}")
    ]


def _joined(found: Files, name: str) -> str:
    return remote.join(found.root, name) if is_url(found.root) else str(Path(found.root, name))


def _left_out(skip: bool, path: bytes) -> str:
    """Return why a file is no shard, or, if ``skip``, that it is unreadable; "" if it is wanted."""
    if not path.lower().endswith(tuple(map(str.encode, TARS))):
        return BESIDE if path.endswith(b"/README.md") else NO_TAR
    return "" if not skip or os.access(path, os.R_OK) else "unreadable"
