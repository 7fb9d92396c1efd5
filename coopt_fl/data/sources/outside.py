"""``python:MODULE:FUNCTION``: a source made by a function that is imported by its name."""

from coopt_fl.config.schema import DataConfig
from coopt_fl.data.source import Source
from coopt_fl.plugins import function


def images(data: DataConfig, split: str) -> Source | None:
    """Call the function with the settings and the split; None: there is no such split."""
    made: Source | None = function(data.source)(data, split)
    return made
