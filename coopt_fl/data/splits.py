"""Find the split of a file by the words of its name, as Hugging Face's ``datasets`` does."""

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
"""The words that name a split; a word is a run of letters, so "strains" and "latest" do not."""


def split_of(name: str) -> str | None:
    """Return "train", "test" or "validation"; None if the name contains no word for a split.

    Raises:
        DataError: it contains words for several splits.
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
        DataError: a name contains words for several splits.
    """
    return next(filter(None, map(split_of, reversed(path.split("/")))), None)


def names(path: str, split: str) -> bool:
    """Tell whether ``split`` occurs in a path as one or more whole words, ignoring case."""
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
    """Return the items of ``found`` that belong to ``split``, in order; [] if there are none.

    Validation serves as the test split if nothing is named test, or if only validation has labels.
    Train items are never in the test split.

    Args:
        found: files, folders or splits.
        wanted: the names of the splits in the configuration.
        split: "train" or "test".
        named: returns "train", "test", "validation", or None, by the words of an item's name.
        is_called: tells whether an item belongs to the split of that name.
        has_labels: called with the train items and others: tells whether the others have labels.
    """
    found = list(found)

    def called(name: str | None, rule: str) -> list[T]:
        if name is not None:
            return [item for item in found if is_called(item, name)]
        return [item for item in found if named(item) == rule]

    train = called(wanted.train, "train")
    if split == "train":
        return train
    test, other = (
        [item for item in called(wanted.test, rule) if item not in train]
        for rule in ("test", "validation")
    )
    hidden = other and test and not has_labels(train, test) and has_labels(train, other)
    return other if not test or hidden else test
