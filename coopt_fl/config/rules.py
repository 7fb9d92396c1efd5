"""Check each key's value by its type and the rules in :mod:`coopt_fl.config.schema`."""

import dataclasses
import difflib
import math
import operator
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from coopt_fl.config.schema import Config, ParticipantConfig
from coopt_fl.registry import OPEN, PARTS

TYPES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list[str]: "a list of texts",
}
BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("at least", operator.ge),
    "maximum": ("at most", operator.le),
    "above": ("above", operator.gt),
}
"""The rules of :class:`coopt_fl.config.schema.Rules` that compare numbers."""


def typed_values(kind: Any, tree: Any, prefix: str, problems: list[str]) -> Any:
    """Return an instance of the dataclass ``kind`` with the values in ``tree``.

    What is wrong is appended to ``problems``; ``prefix`` precedes the keys in them.
    """
    if not isinstance(tree, dict):
        problems.append(f"{prefix.rstrip('.')}: {tree!r} must hold keys and values")
        return kind()
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if name not in fields:
            problems.append(f"{key}: no such key{nearest(key, list(all_keys()))}")
        elif dataclasses.is_dataclass(fields[name].type):
            values[name] = typed_values(fields[name].type, value or {}, f"{key}.", problems)
        elif name != "participants":
            values[name] = _scalar(fields[name], value, key, problems)
        elif isinstance(value, list):
            values[name] = [
                typed_values(ParticipantConfig, item, f"{key}.{index}.", problems)
                for index, item in enumerate(value)
            ]
        else:
            problems.append(f"{key}: {value!r} must be a list of {{name, prior, weight}}")
    return kind(**values)


def _scalar(field: dataclasses.Field[Any], value: Any, key: str, problems: list[str]) -> Any:
    """Return ``value``, checked; a whole number becomes a float if the type is float."""
    if field.type == list[str]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            problems.append(f"{key}: {value!r} is not allowed; allowed: {TYPES[list[str]]}")
        return value
    kinds: list[Any] = [*typing.get_args(field.type)] or [field.type]
    kind, optional = kinds[0], len(kinds) > 1
    if value is None and optional:
        return None
    if kind is float and type(value) is int:
        value = float(value)
    choices = choices_of(field)
    allowed, fine = [", ".join(choices) or TYPES[kind]], type(value) is kind
    for rule, (words, holds) in BOUNDS.items():
        if rule in field.metadata:
            bound = field.metadata[rule]
            allowed.append(f"{words} {bound}")
            fine = fine and holds(value, bound)
    known = not choices or value in choices or _is_open(field, value)
    if not (fine and known and (kind is not float or math.isfinite(value))):
        near = nearest(value, choices) if isinstance(value, str) else ""
        allowed += ["or null"] * optional
        problems.append(f"{key}: {value!r} is not allowed{near}; allowed: {', '.join(allowed)}")
    return value


def choices_of(field: dataclasses.Field[Any]) -> list[str]:
    """Return the names that a key may be, including those of plug-ins; [] if it is not a choice."""
    kind = field.metadata.get("part")
    return PARTS.names(kind) if kind else list(field.metadata.get("choices", ()))


def _is_open(field: dataclasses.Field[Any], value: Any) -> bool:
    """Tell whether ``value`` is a part's name, a colon and more, such as ``python:MODULE:NAME``."""
    kind = field.metadata.get("part")
    return kind in OPEN and isinstance(value, str) and ":" in value and PARTS.has(kind, value)


def all_keys(kind: Any = Config, prefix: str = "") -> Iterator[str]:
    """Yield every key that can be set, list items with index 0."""
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.type):
            yield from all_keys(field.type, f"{prefix}{field.name}.")
        elif field.name == "participants":
            yield from all_keys(ParticipantConfig, "participants.0.")
        else:
            yield prefix + field.name


def nearest(word: str, names: Sequence[str]) -> str:
    """Return " (did you mean ...?)" or nothing; a list index counts as index 0."""
    plain = ".".join("0" if part.isdigit() else part for part in word.split("."))
    found = difflib.get_close_matches(plain, names, n=1, cutoff=0.5)
    if not found:
        tail = plain.rpartition(".")[2]
        found = [name for name in names if name.rpartition(".")[2] == tail][:1]
    return f" (did you mean {found[0]}?)" if found else ""
