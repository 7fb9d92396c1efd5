"""Hugging Face datasets: a folder of ``save_to_disk``, a repository, or a name on the hub."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coopt_fl.config.places import HUB, placed
from coopt_fl.config.schema import DataConfig
from coopt_fl.core.cache import cache_dir
from coopt_fl.core.errors import ConfigError, DataError
from coopt_fl.core.extras import install_hint
from coopt_fl.core.files import is_file, is_folder, read_regular
from coopt_fl.core.once import once
from coopt_fl.data.columns import (
    as_texts,
    doubts,
    image_column,
    label_column,
    names_of_classes,
    require_label,
)
from coopt_fl.data.fingerprint import UNREADABLE, remembered
from coopt_fl.data.source import LABEL, EncodedSource, NoSplitError, Source
from coopt_fl.data.sources.classes import numbers
from coopt_fl.data.splits import of_split, split_of

SAVED = ("dataset_dict.json", "state.json")
"""Files that ``save_to_disk`` writes for several splits, and for one."""

ROWS_AT_ONCE = 256
"""Rows in memory at once while all are read."""


def images(data: DataConfig, split: str) -> Source:
    """Open a split of the dataset ``data.root``."""
    rows = _of_split(data, _splits(data), split)
    schema = rows.features.arrow_schema
    column = image_column(str(data.root), schema, data.image_column)
    if not len(rows):
        kind = NoSplitError if split == "test" else DataError
        raise kind(f"the {split} split of {data.root} has no rows")
    source = HFSource(data, rows, column)
    source.notes = doubts(schema, data.label_column)
    return source


def labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Return the labels, int64 (N,), numbered by :func:`classes.numbers`, or None."""
    splits = _splits(data)
    train, mine = (_of_split(data, splits, one) for one in ("train", split))
    require_label(str(data.root), train.column_names, data.label_column)
    found = _numbers(data, train, mine)
    return None if found is None else found[: data.limit]


def class_names(data: DataConfig) -> list[str]:
    """Return the dataset's names of its classes, in order; [] if it has none."""
    schema = _of_split(data, _splits(data), "train").features.arrow_schema
    return names_of_classes(schema, label_column(str(data.root), schema, data.label_column))


def is_saved(folder: Path) -> bool:
    """Tell whether ``save_to_disk`` wrote a folder."""
    return any(is_file(folder / name, DataError) for name in SAVED)


def problem() -> str | None:
    """Return why this source cannot be used on this host; None if it can."""
    if find_spec("datasets") is not None:
        return None
    return f"data.source=hf needs datasets, which is not installed: {install_hint('hf')}"


class HFSource(EncodedSource):
    """The rows of a split.

    Args:
        data: gives the name and the limit of the source.
        rows: the split, a ``datasets.Dataset``.
        column: the column of the images.
    """

    def __init__(self, data: DataConfig, rows: Any, column: str) -> None:
        super().__init__(data.source, min(len(rows), data.limit or len(rows)))
        self._files = [Path(file["filename"]) for file in rows.cache_files]
        self._every, self._rows = rows, rows.select_columns([column]).with_format("arrow")
        self._root, self._skip = data.root, data.on_error == "skip"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the images used, independent of how they are packed in files."""
        if not self._files:  # the dataset is in memory
            return self._digest()
        files = [*map(os.fsencode, self._files), *map(os.fsencode, self._outside())]
        of = f"hf {self._rows.column_names[0]} {len(self)}"
        return remembered(Path("/"), files, self._digest, skip=self._skip, of=of)

    def column(self, name: str) -> NDArray[np.str_] | None:
        """Return the values (N,) of a column as text; None if there is no such column."""
        if name not in self._every.column_names:
            return None
        table = self._every.select_columns([name]).with_format("arrow")[: len(self)]
        return as_texts(str(self._root), name, table.column(0))

    def where(self, id: int) -> str:
        """Return the dataset and the row in it."""
        return f"{self._root} row {id}"

    def _bytes(self, id: int) -> bytes:
        return _content(self._rows[id : id + 1].column(0)[0].as_py())

    def _digest(self) -> str:
        total = hashlib.sha256(b"hf")
        for value in chain.from_iterable(chunk.to_pylist() for chunk in self._chunks()):
            try:
                total.update(hashlib.sha256(_content(value)).digest())
            except OSError:
                if not self._skip:
                    raise
                total.update(UNREADABLE)
        return total.hexdigest()

    def _chunks(self) -> Iterator[Any]:
        """Yield the column of images as Arrow arrays."""
        for start in range(0, len(self), ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, len(self))
            yield from self._rows[start:stop].column(0).chunks

    def _outside(self) -> Iterator[str]:
        """Yield the paths of images that are separate files."""
        for chunk in self._chunks():
            if pa.types.is_struct(chunk.type) and chunk.type.get_field_index("path") >= 0:
                missing = chunk.filter(pc.is_null(chunk.field("bytes")))
                yield from filter(None, missing.field("path").to_pylist())


def _content(value: Any) -> bytes:
    """Return the bytes of an image's file; b"" for a null."""
    if isinstance(value, dict):
        if value["bytes"] is None and value.get("path"):
            return read_regular(Path(value["path"]))
        value = value["bytes"]
    return value or b""


def _numbers(data: DataConfig, train: Any, rows: Any) -> NDArray[np.int64] | None:
    column = label_column(str(data.root), train.features.arrow_schema, data.label_column)

    def of(some: Any) -> Any:
        if column is None or column not in some.column_names:
            return pa.nulls(len(some))
        return some.select_columns([column]).with_format("arrow")[:].column(0)

    return numbers({"train": of(train)}, {"test": of(rows)}, column or LABEL)


def _of_split(data: DataConfig, splits: dict[str, Any], split: str) -> Any:
    """Return the rows of a split.

    Raises:
        NoSplitError: there is no test split.
        DataError: there is no train split, or several may be meant.
    """

    def known(train: list[str], some: list[str]) -> bool:
        trained = splits[train[0]] if train else None
        return all(_numbers(data, trained or splits[one], splits[one]) is not None for one in some)

    found = of_split(splits, data.split, split, split_of, str.__eq__, known)
    if split in found:  # "test" before "test_small"
        found = [split]
    if len(found) == 1:
        return splits[found[0]]
    problem = f"{data.root} has the splits {', '.join(splits)}"
    called = getattr(data.split, split) or split
    if not found and split == "test":
        raise NoSplitError(f"{problem}, and none called {called}: choose one by data.split.test")
    which = (
        f"of these, {' and '.join(found)} may be meant" if found else f"and none called {called}"
    )
    raise DataError(f"{problem}, {which}: choose one by data.split.{split}")


def _splits(data: DataConfig) -> dict[str, Any]:
    """Return the dataset's splits by name.

    Raises:
        ConfigError: the library is not installed.
        DataError: there is no such dataset, or it cannot be read.
    """
    datasets, root = _library(), placed(data)
    return once(("hf", root), lambda: _opened(datasets, root, data.root))


def _opened(datasets: Any, root: str, name: str | None) -> dict[str, Any]:
    """Return the splits of the dataset at ``root``; errors call it ``name``."""
    try:
        if root.startswith(HUB):
            found = _from_hub(datasets, root)
        elif not is_folder(folder := Path(root), DataError):
            raise DataError(
                f"data.root={name} is not a folder; set it to one of save_to_disk, or to "
                "hf://USER/NAME for a dataset on the Hugging Face hub"
            )
        else:
            with _silent(datasets):
                found = (
                    datasets.load_from_disk(root)
                    if is_saved(folder)
                    else datasets.load_dataset(root, cache_dir=str(cache_dir() / "datasets"))
                )
    except DataError:
        raise
    except Exception as error:  # the library and its dependencies may raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        problem = f"data.root={name} cannot be opened by datasets ({reason})"
        here = "; there is no such folder here either" if root.startswith(HUB) else ""
        raise DataError(f"{problem}{here}") from error
    return found if isinstance(found, dict) else {str(found.split or "train"): found}


def _from_hub(datasets: Any, url: str) -> Any:
    """Load ``hf://NAME``, ``hf://USER/NAME`` or ``hf://USER/NAME/CONFIGURATION``."""
    user, name, configuration, *_ = [*url.removeprefix(HUB).split("/"), "", ""]
    return datasets.load_dataset("/".join(filter(None, (user, name))), configuration or None)


@contextmanager
def _silent(datasets: Any) -> Iterator[None]:
    """Hide the library's progress bars until the block ends."""
    shown = not datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _library() -> Any:
    if missing := problem():
        raise ConfigError(missing)
    return import_module("datasets")
