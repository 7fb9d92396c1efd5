"""A list of image files and their labels: CSV, TSV or JSON lines, or a folder of such lists.

A list has a column of paths, from its own folder on. The splits are a column ``split``, or lists
of their own, named as other files of a split are: ``test.csv``, or ``train/metadata.csv`` as
Hugging Face's ``datasets`` have it.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv, json

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.files import expanded, is_file
from coopt_fl.core.once import once
from coopt_fl.data.columns import as_texts, require_label
from coopt_fl.data.listing import BESIDE, named
from coopt_fl.data.source import LABEL, NoSplitError, Source
from coopt_fl.data.sources.classes import numbers_of_texts
from coopt_fl.data.sources.folders import FilesSource, Paths, no_image
from coopt_fl.data.split_files import below, choose
from coopt_fl.data.splits import of_split, split_of

PATHS = ("path", "file_name", "filename", "file", "filepath", "image_path", "image")
"""What the column of paths may be called."""

SPLIT = "split"
"""What the column of splits is called."""

ASKED = "asked"
"""What the column that is asked for is called here."""

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATORS, ".jsonl")
TRAINED = "listed to train on, too"
AGAIN = "listed twice"
OTHERWISE = "listed twice with two labels, of which the first counts"
NO_FILE = "a folder, a pipe or the like, where a file is expected"


def images(data: DataConfig, split: str) -> Source:
    """Open the images that are listed for ``split`` in ``data.root``."""
    folder, table, notes = _rows(data, split)
    by_reason: dict[str, list[bytes]] = {"": []}
    for name, reason in zip(_paths(table), _reasons(data, split, folder, table), strict=True):
        by_reason.setdefault(reason, []).append(name)
    names = by_reason.pop("")
    for reason, others in by_reason.items():
        notes += (f"in {data.root}, {len(others):,} left out: {reason} ({named(others)})",)
    if not names:
        problem = f"{data.root} lists no {split} images"
        kind = DataError if split == "train" or len(table) else NoSplitError
        raise kind("; ".join([problem, *notes, "write a line for each"]))
    source = ListSource(data, folder, np.array(names), split)
    source.notes = notes
    return source


def labels(data: DataConfig, split: str) -> NDArray[np.int64] | None:
    """Return the column of labels, int64 (N,), as :func:`classes.numbers` does."""
    folder, mine, _ = _rows(data, split)
    train = mine if split == "train" else _rows(data, "train")[1]
    found = _numbers(data, {"train": train}, {split: mine})
    if found is not None:
        found = found[_fit(data, split, folder, mine)][: data.limit]
    return found


class ListSource(FilesSource):
    """The images of ``split`` in a list, whose other columns are read when they are asked for."""

    def __init__(self, data: DataConfig, folder: Path, paths: Paths, split: str) -> None:
        super().__init__(data, folder, paths)
        self._data, self._split = data, split

    def column(self, name: str) -> NDArray[np.str_] | None:
        """Return the values of a column, as text; None where no list has it."""
        folder, table, _ = _rows(self._data, self._split, name)
        if ASKED not in table.column_names:
            return None
        values = as_texts(str(folder), name, table.column(ASKED))
        return values[_fit(self._data, self._split, folder, table)][: len(self)]


def is_manifest(path: Path) -> bool:
    """Tell whether a file is a list of images, by its suffix and the names of its columns."""
    try:
        return path.suffix.lower() in SUFFIXES and bool(_table(path, DataConfig(), b""))
    except DataError:
        return False


def _rows(
    data: DataConfig, split: str, asked: str | None = None
) -> tuple[Path, Any, tuple[str, ...]]:
    """Return the folder that paths are below, a table of paths and labels, and what was left out.

    The table also has the column ``asked``.

    Raises:
        NoSplitError: there is no such split.
        DataError: a list is missing, or cannot be understood.
    """
    root = expanded(data.root or "")
    if is_file(root, DataError):
        return root.parent, _of_split(data, _table(root, data, b"", asked), split), ()
    tables: dict[str, Any] = {}

    def table(name: str) -> Any:
        if name not in tables:
            folder = b"".join(os.fsencode(name).rpartition(b"/")[:2])
            tables[name] = _table(root / name, data, folder, asked)
        return tables[name]

    def known(train: list[str], some: list[str]) -> bool:
        of_train, mine = ({name: table(name) for name in names} for names in (train, some))
        return _numbers(data, of_train, mine) is not None

    unwanted = partial(_left_out, data.on_error == "skip")
    lists = once(("lists", repr(data)), lambda: below(data, unwanted, ".csv"))
    chosen = choose(lists, data, split, ".csv", known)
    together = pa.concat_tables(map(table, chosen.names), promote_options="permissive")
    return root, together, chosen.notes


def _of_split(data: DataConfig, table: Any, split: str) -> Any:
    """Return the rows of a split of the only list; without a column ``split`` all are for train."""
    if SPLIT not in table.column_names:
        if split == "train" and data.split.train is None:
            return table
        raise NoSplitError(
            f"{data.root} has no column {SPLIT}: add one that says train or test, or point "
            "data.root at a folder with train.csv and test.csv"
        )

    def having(splits: list[str]) -> Any:
        return table.filter(pc.is_in(table.column(SPLIT), pa.array(splits, pa.string())))

    def known(train: list[str], some: list[str]) -> bool:
        return _numbers(data, {"train": having(train)}, {"test": having(some)}) is not None

    every = [one for one in table.column(SPLIT).unique().to_pylist() if one]
    chosen = of_split(every, data.split, split, split_of, str.__eq__, known)
    if not chosen:
        called = getattr(data.split, split) or split
        kind = NoSplitError if split == "test" else DataError
        raise kind(
            f"column {SPLIT} of {data.root} says {', '.join(every) or 'nothing'}, and nowhere "
            f"{called}: write that, or choose by data.split.{split}"
        )
    return having(chosen)


def _numbers(
    data: DataConfig, train: Mapping[str, Any], tables: Mapping[str, Any]
) -> NDArray[np.int64] | None:
    of_train, mine = (
        {name: table.column(LABEL) for name, table in some.items()} for some in (train, tables)
    )
    return numbers_of_texts(of_train, mine, data.label_column or LABEL)


def _table(path: Path, data: DataConfig, folder: bytes, asked: str | None = None) -> Any:
    """Return the columns path, from ``folder`` on, label, and split and ``asked`` where they are.

    Raises:
        DataError: the list cannot be read, or it is not clear which column is that of paths.
    """
    wanted = data.label_column or LABEL
    try:
        table = once((path, data.image_column), lambda: _read(path, data.image_column))
        names = table.column_names
        require_label(str(path), names, data.label_column)
        paths = table.column(_path_column(path, names, data.image_column)).cast(pa.binary())
        columns = {"path": pc.binary_join_element_wise(folder, paths.fill_null(b""), b"")}
        columns[LABEL] = table.column(wanted) if wanted in names else pa.nulls(len(table))
        if SPLIT in names:
            columns[SPLIT] = table.column(SPLIT).cast(pa.string())
        if asked is not None and asked in names:
            columns[ASKED] = pa.array(as_texts(str(path), asked, table.column(asked)))
        return pa.table(columns)
    except (OSError, pa.ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{path} cannot be read as a list of images ({reason}); mend it") from error


def _read(path: Path, chosen: str | None) -> Any:
    """Return a list as it is; of CSV, all columns are texts, and paths are bytes."""
    separator = SEPARATORS.get(path.suffix.lower())
    if separator is None:
        return json.read_json(path)
    parsing = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    with csv.open_csv(path, parse_options=parsing) as reader:
        names = reader.schema.names
    kinds = dict.fromkeys(names, pa.string()) | {_path_column(path, names, chosen): pa.binary()}
    converting = csv.ConvertOptions(column_types=kinds, strings_can_be_null=False)
    return csv.read_csv(path, parse_options=parsing, convert_options=converting)


def _path_column(path: Path, names: Sequence[str], chosen: str | None) -> str:
    """Return the name of the column of paths.

    Raises:
        DataError: there is none, or several can be meant.
    """
    found = [name for name in names if name in ([chosen] if chosen else PATHS)]
    if len(found) == 1 and len(set(names)) == len(names):
        return found[0]
    said = f"no column {chosen or 'path'}"
    if found:
        said = f"several columns that may hold the paths, {' and '.join(found)}"
    if len(set(names)) < len(names):
        said = "two columns of one name"
    raise DataError(
        f"{path} has {said}; its columns are {', '.join(names)}: choose the one of paths by "
        "data.image_column"
    )


def _paths(table: Any) -> list[bytes]:
    found: list[bytes] = table.column("path").to_pylist()
    return found


def _fit(data: DataConfig, split: str, folder: Path, table: Any) -> list[bool]:
    return [not reason for reason in _reasons(data, split, folder, table)]


def _reasons(data: DataConfig, split: str, folder: Path, table: Any) -> list[str]:
    """Return for each row why it is left out; "" where it is not."""
    trained, seen, found = set[bytes](), dict[bytes, object](), list[str]()
    if split != "train":
        with suppress(DataError):  # there is nothing to train on
            trained = {os.path.normpath(name) for name in _paths(_rows(data, "train")[1])}
    for name, label in zip(_paths(table), table.column(LABEL).to_pylist(), strict=True):
        plain, reason = os.path.normpath(name), _unfit(folder, name)
        if not reason and plain in trained:
            reason = TRAINED
        elif not reason and plain in seen:
            reason = AGAIN if seen[plain] == label else OTHERWISE
        seen.setdefault(plain, label)
        found.append(reason)
    return found


def _unfit(folder: Path, name: bytes) -> str:
    """Return why a path is not that of an image; "" of one that is missing or unreadable, too."""
    try:
        if not stat.S_ISREG((folder / os.fsdecode(name)).stat().st_mode):
            return NO_FILE
    except OSError:  # who reads it says so
        return ""
    except ValueError:  # it holds a zero
        return NO_FILE
    return no_image(os.path.join(os.fsencode(folder), name))  # noqa: PTH118 - of bytes


def _left_out(skip: bool, path: bytes) -> str:
    """Return why a file is no list, or cannot be read and need not."""
    if not path.lower().endswith(tuple(map(str.encode, SUFFIXES))):
        return BESIDE
    return "" if not skip or os.access(path, os.R_OK) else "unreadable"
