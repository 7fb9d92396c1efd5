"""Which split a file belongs to, by the words of its name, as Hugging Face's ``datasets`` says."""

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from coopt_fl.config.schema import SplitConfig
from coopt_fl.core.errors import DataError

T = TypeVar("T")

WORDS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
}
"""The words that name a split; words end where letters do, so "strains" and "latest" are none."""


def split_of(name: str) -> str | None:
    """Return "train", "test" or "validation", or None where a file's name has none of the words.

    Raises:
        DataError: it has words of several splits.
    """
    words = re.findall(r"[^\W\d_]+", name.lower())
    splits = {WORDS[word] for word in words if word in WORDS}
    if len(splits) > 1:
        raise DataError(
            f"{name} names several splits, {' and '.join(sorted(splits))}; rename it so that it "
            "names one"
        )
    return next(iter(splits), None)


def split_of_path(path: str) -> str | None:
    """Return the split that a path names: that of the file, or else of the nearest folder.

    Raises:
        DataError: one of these names several splits.
    """
    return next(filter(None, map(split_of, reversed(path.split("/")))), None)


def names(path: str, split: str) -> bool:
    """Tell whether ``split`` is a whole word of a path, or several, whatever their case."""
    word = re.escape(split.lower())
    ends = r"(?![^\W\d_])" if split[-1:].isalpha() else r"(?!\d)"
    return re.search(rf"(?<![^\W\d_]){word}{ends}", path.lower()) is not None


def of_split(
    found: Iterable[T],
    wanted: SplitConfig,
    split: str,
    named: Callable[[T], str | None],
    is_called: Callable[[T, str], bool],
    has_labels: Callable[[list[T], list[T]], bool],
) -> list[T]:
    """Return what of ``found`` belongs to ``split``, in order; nothing where there is none.

    Validation is the test split where nothing is named for test, or where it alone has labels.
    Nothing that is trained on is judged on.

    Args:
        found: files, folders or splits.
        wanted: what the splits are called, where the configuration says so.
        split: "train" or "test".
        named: "train", "test", "validation", or None where its name has none of their words.
        is_called: tells whether it belongs to the split of that name.
        has_labels: tells whether some of them have labels, given those of train.
    """
    found = list(found)

    def called(name: str | None, rule: str) -> list[T]:
        if name is not None:
            return [one for one in found if is_called(one, name)]
        return [one for one in found if named(one) == rule]

    train = called(wanted.train, "train")
    if split == "train":
        return train
    test, other = (
        [one for one in called(wanted.test, rule) if one not in train]
        for rule in ("test", "validation")
    )
    hidden = other and test and not has_labels(train, test) and has_labels(train, other)
    return other if not test or hidden else test
