"""From a library's metadata to our preprocessing."""

from collections.abc import Iterable

from coopt_fl.data.preprocess import Preprocess


def as_preprocess(
    size: int, resize: int, interpolation: str, mean: Iterable[float], std: Iterable[float]
) -> Preprocess:
    """Build a Preprocess from the lists and tuples that the libraries keep."""
    return Preprocess(size, resize, interpolation, _per_channel(mean), _per_channel(std))


def _per_channel(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
