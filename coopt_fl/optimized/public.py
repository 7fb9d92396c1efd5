"""What is published of a run: no paths and no URLs, because they name users and hosts."""

import re
from dataclasses import asdict
from typing import Any

from coopt_fl.config.schema import Config, PayloadConfig

_PLACE = re.compile(r"\S*(?:[/\\]|\w@\w)\S*")
"""A word that is a path, a URL, or like user@host."""

_NAMED_FIRST = ("open_clip", "torchvision")
"""Schemes of priors with names of the form MODEL/WEIGHTS, where WEIGHTS may be a path."""

_NO_FILES = ("timm", "random", "trivial", "python", "module")
"""Schemes of priors whose names are never paths."""


def public_config(config: Config) -> dict[str, Any]:
    """Return ``config`` without paths and URLs, as plain values that can be loaded again."""
    tree = asdict(config)
    tree["data"] |= {"root": None, "shards": None}
    tree["plugins"], tree["tracker"] = [], Config().tracker
    tree["student"]["init"] = public_init(config.student.init)
    tree["payload"]["route"] = PayloadConfig().route
    for participant in tree["participants"]:
        participant["prior"] = public_prior(participant["prior"])
    return tree


def public_init(init: str | None) -> str | None:
    """Return ``student.init``, or None if it is a file."""
    return None if init is None or ":" not in init or public_prior(init) != init else init


def public_prior(spec: str) -> str:
    """Return a prior's spec with any path cut to its file name; the weights' sha256 identifies it.

    ``checkpoint:/home/ann/x.pt?size=96`` becomes ``checkpoint:x.pt?size=96``.
    """
    body, mark, options = spec.partition("?")
    scheme, colon, name = body.partition(":")
    if scheme in _NO_FILES:
        return spec
    if colon and scheme in _NAMED_FIRST:
        model, slash, weights = name.partition("/")
        return f"{scheme}:{model}{slash}{_last(weights)}{mark}{options}"
    return f"{_last(scheme)}{colon}{_last(name)}{mark}{options}"


def without_places(value: Any) -> Any:
    """Return plain values with an ellipsis for every path and URL in their texts."""
    if isinstance(value, str):
        return _PLACE.sub("…", value)
    if isinstance(value, dict):
        return {key: without_places(one) for key, one in value.items()}
    return [without_places(one) for one in value] if isinstance(value, (list, tuple)) else value


def _last(path: str) -> str:
    """Return the last part of a path, whichever of ``/`` and ``\\`` separates its parts."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
