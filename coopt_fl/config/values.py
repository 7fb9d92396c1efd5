"""Turn the texts of a configuration into values, by the types of their keys.

YAML 1.1 reads 010 as 8, 1:30 as 90, 1_000 as 1000, and "no" as false; so a name or a folder can
become a number or nothing. Here YAML gives only the structure, and the key's type decides what an
unquoted text means, in a file and in ``KEY=VALUE`` alike. An ambiguous text is refused.
"""

import dataclasses
import re
import typing
from typing import Any

import yaml

from coopt_fl.config.schema import Config, ParticipantConfig

WHOLE = re.compile(r"[-+]?(0|[1-9]\d{0,18})", re.ASCII)
"""A whole number in decimal, without leading zeros."""

LARGEST = 2**63 - 1
"""The largest whole number that messages can hold."""

NUMBER = re.compile(r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)

NOTHING = ("", "null")
"""Texts that mean null; for numbers, those in :data:`DOUBTFUL` do, too."""

DOUBTFUL = ("~", "Null", "NULL")
"""Null in YAML, but also possible names: refused if a file gives one to a text key."""

TRUTH = {"true": True, "false": False}

BROKEN = (yaml.YAMLError, ValueError, RecursionError)
"""The exceptions that reading YAML raises."""


class Unquoted(str):
    """A text without quotes."""


class DoubtfulError(ValueError):
    """A text is ambiguous."""


class _Loader(yaml.SafeLoader):
    """Reads every scalar as text; refuses duplicate keys and all tags for other types."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as its base class has it
        "<": yaml.SafeLoader.yaml_implicit_resolvers["<"]  # merges mappings
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a dictionary; raise ConstructorError for a duplicate key."""
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(
                None, None, "keys and values are expected", node.start_mark
            )
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1 and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _text(_: _Loader, node: yaml.ScalarNode) -> str:
    return str(node.value) if node.style else Unquoted(node.value)


KNOWN = ("str", "seq", "map")
_Loader.yaml_constructors = {  # YAML 1.1's others would convert texts
    None: yaml.SafeLoader.yaml_constructors[None],
    **{
        f"tag:yaml.org,2002:{kind}": yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{kind}"]
        for kind in KNOWN
    },
}
_Loader.add_constructor("tag:yaml.org,2002:str", _text)


def read_yaml(text: str | bytes) -> Any:
    """Return the content of YAML; its unquoted texts are :class:`Unquoted`.

    Raises:
        Exception: one of ``BROKEN``.
    """
    return yaml.load(text, _Loader)


def kind_of(words: typing.Sequence[str]) -> Any:
    """Return the type of a key or section, given the ``words`` of its name; None: no such key."""
    kind: Any = Config
    for word in words:
        if dataclasses.is_dataclass(kind):
            kind = {field.name: field.type for field in dataclasses.fields(kind)}.get(word)
        else:
            kind = (
                ParticipantConfig if kind == list[ParticipantConfig] and word.isdecimal() else None
            )
    return kind


def is_text(kind: Any) -> bool:
    """Tell whether a key of this type holds text, or text or null."""
    return str in (typing.get_args(kind) or (kind,)) and kind != list[str]


def meant(value: Any, kind: Any, key: str) -> Any:
    """Return what is meant by a value that :func:`read_yaml` returned.

    Args:
        value: a text, list or dictionary.
        kind: the type of its key, see :func:`kind_of`.
        key: the key, for errors.

    Raises:
        DoubtfulError: a text is ambiguous.
    """
    if isinstance(value, dict):
        kinds = {}
        if dataclasses.is_dataclass(kind):
            kinds = {field.name: field.type for field in dataclasses.fields(kind)}
        parts = {str(name): part for name, part in value.items()}
        return {
            name: meant(part, kinds.get(name), f"{key}.{name}".lstrip("."))
            for name, part in parts.items()
        }
    if isinstance(value, list):
        of = typing.get_args(kind)[0] if typing.get_origin(kind) is list else None
        return [meant(item, of, f"{key}.{place}") for place, item in enumerate(value)]
    if not isinstance(value, Unquoted):
        return value
    if is_text(kind) and value in DOUBTFUL:
        raise DoubtfulError(
            f'{key}: {value} is nothing in YAML, but may be a name: write null or "{value}"'
        )
    return of_text(value, kind)


def of_text(text: str, kind: Any) -> Any:
    """Return the value that an unquoted text means for this type; the text itself if none."""
    text = str(text)
    if text in NOTHING or (text in DOUBTFUL and not is_text(kind)):
        return None
    kinds = typing.get_args(kind) or (kind,)
    if bool in kinds and text.lower() in TRUTH:
        return TRUTH[text.lower()]
    if int in kinds and WHOLE.fullmatch(text) and abs(int(text)) <= LARGEST:
        return int(text)
    if float in kinds and NUMBER.fullmatch(text):
        return float(text)
    return text
