"""``KEY=VALUE``: settings that override those of a configuration file."""

import dataclasses
import itertools
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from coopt_fl.config.values import (
    BROKEN,
    DoubtfulError,
    is_text,
    kind_of,
    meant,
    of_text,
    read_yaml,
)


def settings_of(changes: Mapping[str, Any]) -> list[str]:
    """Return settings given as a mapping, {"student.epochs": 2}, as ``KEY=VALUE`` strings."""
    return [
        f"{key}={json.dumps(value, default=_plain, ensure_ascii=False)}"
        for key, value in changes.items()
    ]


def changed(overrides: Sequence[str], key: str) -> Any:
    """Return the value that ``overrides`` give to ``key``, or None."""
    tree: Any = {}
    for override in overrides:
        set_key(tree, override, [])
    for word in key.split("."):
        tree = tree.get(word) if isinstance(tree, dict) else None
    return tree


def _plain(value: Any) -> Any:
    """Return a number of numpy as Python's, and anything else, such as a path, as text."""
    return value.item() if hasattr(value, "item") else str(value)


def set_key(tree: dict[str, Any], override: str, problems: list[str]) -> None:
    """Set one ``KEY=VALUE`` in the raw tree; the index after a list's last appends an item."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        problems.append(f"{override!r} is not KEY=VALUE")
        return
    node: Any = tree
    words = key.split(".")
    try:
        parsed = _parsed(text, words)
    except DoubtfulError as error:
        problems.append(str(error))
        return
    except BROKEN as error:
        problems.append(f"{key}: {text!r} is not a YAML value ({' '.join(str(error).split())})")
        return
    for word, following in itertools.zip_longest(words, words[1:]):
        place = _place(node, word, append=following is not None)
        if place is None:
            length = f" (a list of {len(node)}, counted from 0)" if isinstance(node, list) else ""
            problems.append(f"{key}: there is no {word!r} in it{length}")
            return
        if following is None:
            node[place] = parsed
        elif node[place] is None:
            node[place] = [] if following.isdecimal() else {}
        node = node[place]


def _parsed(text: str, words: Sequence[str]) -> Any:
    """Return the value that ``text`` means for a key, see :mod:`coopt_fl.config.values`.

    It is read as YAML only in quotes, or if the key is a list or a section. Anything else is taken
    as it stands, so that nothing after a # is lost.

    Raises:
        Exception: one of ``BROKEN``.
    """
    kind = kind_of(words)
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    structured = kind is None or dataclasses.is_dataclass(kind) or typing.get_origin(kind) is list
    if quoted or (structured and not (kind == list[str] and not text.startswith("["))):
        return meant(read_yaml(text), kind, ".".join(words))
    if structured or is_text(kind):
        return of_text(text, str)
    value = of_text(text.strip(), kind)
    return text if isinstance(value, str) else value


def _place(node: Any, word: str, append: bool) -> Any:
    """Return the key or index that ``word`` is in ``node``, added if missing; None if neither."""
    if isinstance(node, dict):
        node.setdefault(word)
        return word
    if isinstance(node, list) and word.isdecimal():
        if append and int(word) == len(node):
            node.append(None)
        if int(word) < len(node):
            return int(word)
    return None
