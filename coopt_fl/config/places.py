"""``data.root`` in a form that can be opened from any working folder."""

import os
import re
from pathlib import Path

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.files import expanded, is_file

HUB = "hf://"
"""Prefix of the URL of a dataset on the Hugging Face hub."""

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*){0,2}")
"""A dataset there: NAME, USER/NAME, or USER/NAME/CONFIGURATION."""


def is_url(root: str) -> bool:
    """Tell whether ``root`` is a URL, and no path."""
    return "://" in root


def placed(data: DataConfig) -> str:
    """Return ``data.root`` with a path made absolute; a URL stays as it is.

    A link to a file keeps its own name; links to folders are resolved.

    Raises:
        ConfigError: it begins with ``~``, and there is no home directory.
        DataError: it may not be looked at.
    """
    root = data.root or ""
    if is_url(root):
        return root
    path = expanded(root)
    if data.source == "hf" and HUB_NAME.fullmatch(root) and not os.path.lexists(path):
        return HUB + root
    if is_file(path, DataError):
        return str(Path(os.path.realpath(path.parent)) / path.name)
    return os.path.realpath(path)
