"""``KEY=VALUE``: settings that change what a configuration file says."""

import dataclasses
import itertools
import json
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from coopt_fl.config.schema import Config, ParticipantConfig

PLAIN = re.compile(r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)
"""A number as people write it; YAML 1.1 reads 010 as 8, 1:00 as 60 and 1_0 as 10."""


def settings_of(changes: Mapping[str, Any]) -> list[str]:
    """Return settings given as values, {"student.epochs": 2}, as ``KEY=VALUE`` strings."""
    return [
        f"{key}={json.dumps(value, default=_plain, ensure_ascii=False)}"
        for key, value in changes.items()
    ]


def changed(overrides: Sequence[str], key: str) -> Any:
    """Return what ``overrides`` set ``key`` to, or None."""
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
    """Set one ``KEY=VALUE`` in the raw tree; a list's next index begins a new item."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        problems.append(f"{override!r} is not KEY=VALUE")
        return
    node: Any = tree
    words = key.split(".")
    try:
        parsed = _parsed(text, _field_of(words))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
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
            node[place] = [] if following.isdigit() else {}
        node = node[place]


def _parsed(text: str, field: dataclasses.Field[Any] | None) -> Any:
    """Return the value that ``text`` means for a key.

    Where a key is text, so is the value (2024, ~ and "a #b" are paths), but for null and nothing,
    and what is in quotes. Where it is a number, so is what looks like one. All else is YAML without
    comments.
    """
    kinds = [] if field is None else [*typing.get_args(field.type)] or [field.type]
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    is_list = field is not None and field.type == list[str] and text.startswith("[")
    if str in kinds and not is_list:
        return yaml.safe_load(text) if quoted or text in ("", "null") else text
    if kinds and not is_list and not quoted and "#" in text:
        return text  # which is refused, where YAML would leave out the rest
    number = text.strip()
    if {int, float} & {*kinds} and re.match(r"[-+]?\.?\d", number) and not PLAIN.fullmatch(number):
        return text  # likewise
    value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=True)
    return typing.cast(dict[str, Any], value)["value"]


def _field_of(words: Sequence[str]) -> dataclasses.Field[Any] | None:
    """Return the field that a key sets; None of a whole section, and where there is none."""
    kind: Any = Config
    for word in words:
        if dataclasses.is_dataclass(kind):
            field = {one.name: one for one in dataclasses.fields(kind)}.get(word)
            if field is None:
                return None
            kind = field.type
        elif kind == list[ParticipantConfig] and word.isdigit():
            field, kind = None, ParticipantConfig
        else:
            return None
    return None if field is None or dataclasses.is_dataclass(kind) else field


def _place(node: Any, word: str, append: bool) -> Any:
    """Return the key or index that ``word`` is in ``node``; None where it is neither."""
    if isinstance(node, dict):
        node.setdefault(word)
        return word
    if isinstance(node, list) and word.isdigit():
        if append and int(word) == len(node):
            node.append(None)
        if int(word) < len(node):
            return int(word)
    return None
