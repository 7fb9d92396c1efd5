"""Names of classes, for sources that know more than their numbers."""

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data.source import LABEL, Source
from coopt_fl.registry import PARTS


def class_names(
    data: DataConfig, source: Source, rows: NDArray[np.int64], classes: NDArray[np.int64]
) -> dict[int, str]:
    """Return names of classes by their number; a class without a name is left out.

    They are the names that the source lists, or else the original label of a row of each class.

    Args:
        data: the settings of the source.
        source: its train split.
        rows: some rows of it, (R,).
        classes: the class of each of these rows, (R,).
    """
    listed = PARTS.find("source", data.source).fact("class_names")
    if listed is not None and (names := listed(data)):
        return dict(enumerate(names))
    try:
        labels = source.column(data.label_column or LABEL)
    except DataError:  # a torn file, which data.on_error=skip leaves out
        return {}
    if labels is None:
        return {}
    found, first = np.unique(classes, return_index=True)
    words = dict(zip(found.tolist(), labels[rows[first]].tolist(), strict=True))
    return {number: word for number, word in words.items() if not _is_number(word, number)}


def _is_number(word: str, number: int) -> bool:
    """Tell whether a word is empty, or just the number of the class."""
    try:
        return float(word) == number
    except ValueError:
        return not word
