"""A list of image files and their labels: CSV, TSV or JSON lines, or a folder of such lists.

A list has a column of paths, relative to its own folder. The splits are given by a column
``split``, or by one list each, whose path names the split: ``test.csv``, or, as in Hugging Face's
``datasets``, ``train/metadata.csv``.
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
"""Possible names of the column of paths."""

SPLIT = "split"
"""Name of the column of splits."""

ASKED = "asked"
"""Name, in the tables made here, of a further column that was requested."""

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATORS, ".jsonl")
TRAINED = "listed to train on, too"
AGAIN = "listed twice"
OTHERWISE = "listed again with another label; the first counts"
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
    """Return the labels, int64 (N,), numbered by :func:`classes.numbers`, or None."""
    folder, mine, _ = _rows(data, split)
    train = mine if split == "train" else _rows(data, "train")[1]
    found = _numbers(data, {"train": train}, {split: mine})
    if found is not None:
        found = found[_kept(data, split, folder, mine)][: data.limit]
    return found


class ListSource(FilesSource):
    """The images of ``split`` in a list; other columns of the list are read on request."""

    def __init__(self, data: DataConfig, folder: Path, paths: Paths, split: str) -> None:
        super().__init__(data, folder, paths)
        self._data, self._split = data, split

    def column(self, name: str) -> NDArray[np.str_] | None:
        """Return the values (N,) of a column as text; None if no list has it."""
        folder, table, _ = _rows(self._data, self._split, name)
        if ASKED not in table.column_names:
            return None
        values = as_texts(str(folder), name, table.column(ASKED))
        return values[_kept(self._data, self._split, folder, table)][: len(self)]


def is_manifest(path: Path) -> bool:
    """Tell whether a file is a list of images, by its suffix and the names of its columns."""
    try:
        return path.suffix.lower() in SUFFIXES and bool(_table(path, DataConfig(), b""))
    except DataError:
        return False


def _rows(
    data: DataConfig, split: str, asked: str | None = None
) -> tuple[Path, Any, tuple[str, ...]]:
    """Return the folder that paths are relative to, a table of paths and labels, and notes.

    The notes are sentences about files left out. The table has a column ``ASKED`` with the values
    of the column ``asked``, if any list has it.

    Raises:
        NoSplitError: there is no such split.
        DataError: a list is missing or cannot be read.
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
    """Return the rows of a split of a single list; without a column ``split`` all are for train."""
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
    """Return a list's columns: path below ``folder``, label, and, if any, split and ``asked``.

    Raises:
        DataError: the list cannot be read, or its column of paths is unclear.
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
    """Return the table in a list; of CSV, paths are bytes, and all other columns are text."""
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
        DataError: there is none, several are possible, or two columns have the same name.
    """
    found = [name for name in names if name in ([chosen] if chosen else PATHS)]
    if len(found) == 1 and len(set(names)) == len(names):
        return found[0]
    problem = f"no column {chosen or 'path'}"
    if found:
        problem = f"several columns that may hold the paths, {' and '.join(found)}"
    if len(set(names)) < len(names):
        problem = "two columns of one name"
    raise DataError(
        f"{path} has {problem}; its columns are {', '.join(names)}: choose the one of paths by "
        "data.image_column"
    )


def _paths(table: Any) -> list[bytes]:
    found: list[bytes] = table.column("path").to_pylist()
    return found


def _kept(data: DataConfig, split: str, folder: Path, table: Any) -> list[bool]:
    """Return for each row whether it is an image of the split."""
    return [not reason for reason in _reasons(data, split, folder, table)]


def _reasons(data: DataConfig, split: str, folder: Path, table: Any) -> list[str]:
    """Return for each row why it is left out; "" if it is kept."""
    trained, seen, found = set[bytes](), dict[bytes, int](), list[str]()
    classes = None
    with suppress(DataError):  # whoever needs the labels says what is wrong with them
        classes = _numbers(data, {"list": table}, {"list": table})
    if split != "train":
        with suppress(DataError):  # there is nothing to train on
            trained = {os.path.normpath(name) for name in _paths(_rows(data, "train")[1])}
    for row, name in enumerate(_paths(table)):
        plain, reason = os.path.normpath(name), _not_an_image(folder, name)
        label = -1 if classes is None else int(classes[row])
        if not reason and plain in trained:
            reason = TRAINED
        elif not reason and plain in seen:
            reason = AGAIN if seen[plain] == label else OTHERWISE
        seen.setdefault(plain, label)
        found.append(reason)
    return found


def _not_an_image(folder: Path, name: bytes) -> str:
    """Return why a path is no image; "" if it is one, or if it is missing or unreadable."""
    try:
        if not stat.S_ISREG((folder / os.fsdecode(name)).stat().st_mode):
            return NO_FILE
    except OSError:  # reading the image will raise it
        return ""
    except ValueError:  # the path contains a zero byte
        return NO_FILE
    return no_image(os.path.join(os.fsencode(folder), name))  # noqa: PTH118 - of bytes


def _left_out(skip: bool, path: bytes) -> str:
    """Return why a file is no list, or, if ``skip``, that it cannot be read; "" if it is wanted."""
    if not path.lower().endswith(tuple(map(str.encode, SUFFIXES))):
        return BESIDE
    return "" if not skip or os.access(path, os.R_OK) else "unreadable"
