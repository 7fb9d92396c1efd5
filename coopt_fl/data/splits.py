"""Which split a file belongs to, by the words of its name, as Hugging Face's ``datasets`` says."""

import re

from coopt_fl.core.errors import DataError

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
