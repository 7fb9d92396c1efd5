"""Find the files of one kind in a folder, or below it, and those of each split."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coopt_fl.config.schema import DataConfig, SplitConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.files import expanded, is_folder
from coopt_fl.data.listing import Wanted, listed, named
from coopt_fl.data.source import NoSplitError
from coopt_fl.data.splits import names, of_split, split_of_path

NUMBERED = re.compile(r"-(\d{5})-of-(\d{5})")
"""The numbers that ``datasets`` and others give to the files of a split, usually from 0 on."""

HasLabels = Callable[[list[str], list[str]], bool]
"""Called with the train files and others: tells whether the others have labels."""


FILES = re.compile(r"[*?\[{]|\.\w+$")
"""Matches a ``data.root`` that names files and not a folder."""


@dataclass(frozen=True)
class Files:
    """Files of one split, or of all splits.

    Attributes:
        root: the folder or URL that contains all of them.
        names: their paths below ``root``, in order.
        notes: sentences about files that were left out.
    """

    root: str
    names: list[str]
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """The full paths, if ``root`` is a folder."""
        return [Path(self.root, name) for name in self.names]


def below(data: DataConfig, unwanted: Wanted, kind: str) -> Files:
    """Return all files of a kind in ``data.root``, or, if no name there contains a split, below it.

    Args:
        data: the settings of the source.
        unwanted: returns why a file is left out.
        kind: the files' suffix, for errors.

    Raises:
        DataError: ``data.root`` is no folder, or one in it cannot be entered.
    """
    root = expanded(data.root) if data.root else None
    if root is None or not is_folder(root, DataError):
        raise DataError(
            f"data.root={data.root} is not a folder; set it to the one that holds *train*{kind}"
        )
    skip = data.on_error == "skip"
    found = listed(root, unwanted, deep=False, skip=skip)
    if not any(is_named(os.fsdecode(path), data.split) for path in found.paths):
        found = listed(root, unwanted, skip=skip)
    return Files(str(root), [os.fsdecode(path) for path in sorted(found.paths)], found.notes)


def choose(found: Files, data: DataConfig, split: str, kind: str, has_labels: HasLabels) -> Files:
    """Return the files of a split; if no name contains a split, all files are for training.

    Args:
        found: all files.
        data: gives the names of the splits.
        split: "train" or "test".
        kind: the files' suffix, for errors.
        has_labels: see :func:`coopt_fl.data.splits.of_split`; called with file names.

    Raises:
        NoSplitError: there are no files of the test split.
        DataError: there are no train files, a name contains several splits, or the files belong to
            several configurations.
    """
    every, notes = found.names, found.notes
    wanted = data.split
    unnamed = [name for name in every if not is_named(name, wanted)]
    silent = bool(every) and len(unnamed) == len(every) and wanted == SplitConfig()
    if silent:
        notes += (
            f"below {found.root}, no name says train or test, so all are to train on: "
            f"{len(every):,} ({_first(every)})",
        )
    elif unnamed:
        notes += (
            f"below {found.root}, {len(unnamed):,} left out: no word of the name is train, test or "
            f"validation ({_first(unnamed)})",
        )

    def chosen(split: str) -> list[str]:
        rule = (lambda name: "train") if silent else split_of_path
        return of_split(every, wanted, split, rule, names, has_labels)

    mine = chosen(split)
    if not mine:
        called = getattr(wanted, split)
        problem = f"{found.root} has no *{called or split}*{kind}; name the files of that split so"
        has_train = split == "test" and chosen("train")
        raise (NoSplitError if has_train else DataError)("; ".join([problem, *notes]))
    if not silent:
        _require_one_folder(found.root, mine)
    whole = data.on_error == "raise" and not FILES.search(data.root or "")
    return Files(found.root, mine, notes + (_missing(found, mine) if whole else ()))


def is_named(name: str, wanted: SplitConfig) -> bool:
    """Tell whether a path contains the name of a split."""
    called = [one for one in (wanted.train, wanted.test) if one is not None]
    return any(names(name, one) for one in called) or split_of_path(name) is not None


def _missing(found: Files, mine: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence if files numbered 00000-of-00002 and so on are not complete.

    This is not an error, since one may download only a part of a large dataset.
    """
    there: dict[tuple[str, str], set[int]] = {}
    for name in found.names:
        if numbered := NUMBERED.search(name):  # a hash that differs for each file may follow
            group = name[: numbered.start()], numbered[2]
            there.setdefault(group, set()).add(int(numbered[1]))
    absent = []
    for group in sorted(
        {(name[: one.start()], one[2]) for name in mine if (one := NUMBERED.search(name))}
    ):
        before, count = group
        first = int(int(count) in there[group])  # they may be counted from 1
        wanted = range(first, first + int(count))
        absent += [f"{before}-{n:05}-of-{count}" for n in wanted if n not in there[group]]
    if not absent:
        return ()
    return (
        f"below {found.root}, {len(absent):,} of the files that the names of others count are "
        f"missing: fetch them, if all images are wanted ({_first(absent)})",
    )


def _first(names: Sequence[str]) -> str:
    return named([os.fsencode(name) for name in names])


def _require_one_folder(root: str, mine: Sequence[str]) -> None:
    """Raise DataError if files belong to several configurations of a repository.

    Each configuration is a folder, above the part of the path that names the split.
    """
    folders = sorted({_configuration(name) for name in mine})
    if len(folders) > 1:
        raise DataError(
            f"{root} holds several configurations, {', '.join(one or '.' for one in folders)}: "
            f"set data.root to one of them, such as {root}/{folders[-1]}"
        )


def _configuration(name: str) -> str:
    """Return the folder above the part of a path that names its split."""
    parts = name.split("/")
    while len(parts) > 1 and split_of_path(parts[-1]) is None:
        parts.pop()
    return "/".join(parts[:-1])
