"""What a text of a configuration means: the key decides it, in a file and in ``KEY=VALUE`` alike.

YAML 1.1 reads 010 as 8, 1:30 as 90, 1_000 as 1000, and "no" as false; so a name or a folder can
become a number or nothing. Here YAML gives the structure alone, and the key's type says what an
unquoted text is. What can be meant in two ways is refused.
"""

import dataclasses
import re
import typing
from typing import Any

import yaml

from coopt_fl.config.schema import Config, ParticipantConfig

WHOLE = re.compile(r"[-+]?(0|[1-9]\d{0,18})", re.ASCII)
"""A whole number as people write it."""

LARGEST = 2**63 - 1
"""What messages can hold."""

NUMBER = re.compile(r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)

NOTHING = ("", "null")
"""What leaves a key without a value; numbers also by :data:`DOUBTFUL`."""

DOUBTFUL = ("~", "Null", "NULL")
"""Nothing in YAML, and a folder's name elsewhere: refused where a file gives it to a text key."""

TRUTH = {"true": True, "false": False}

BROKEN = (yaml.YAMLError, ValueError, RecursionError)
"""What reading YAML raises."""


class Unquoted(str):
    """A text that stood in no quotes."""


class DoubtfulError(ValueError):
    """A text can be meant in two ways."""


class _Loader(yaml.SafeLoader):
    """Leaves texts as they are, refuses a key that is given twice, and knows no other tags."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as its base class has it
        "<": yaml.SafeLoader.yaml_implicit_resolvers["<"]  # merges mappings
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a dictionary; see the class."""
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
_Loader.yaml_constructors = {  # all others that YAML 1.1 has would read a text in their own way
    None: yaml.SafeLoader.yaml_constructors[None],
    **{
        f"tag:yaml.org,2002:{kind}": yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{kind}"]
        for kind in KNOWN
    },
}
_Loader.add_constructor("tag:yaml.org,2002:str", _text)


def read_yaml(text: str | bytes) -> Any:
    """Return what YAML holds; its unquoted texts are :class:`Unquoted`.

    Raises:
        Exception: one of ``BROKEN``.
    """
    return yaml.load(text, _Loader)


def kind_of(words: typing.Sequence[str]) -> Any:
    """Return the type of what a key holds, which may be a whole section; None: there is no such."""
    kind: Any = Config
    for word in words:
        if dataclasses.is_dataclass(kind):
            kind = {one.name: one.type for one in dataclasses.fields(kind)}.get(word)
        else:
            kind = (
                ParticipantConfig if kind == list[ParticipantConfig] and word.isdecimal() else None
            )
    return kind


def is_text(kind: Any) -> bool:
    """Tell whether a key of this type holds text, or nothing."""
    return str in (typing.get_args(kind) or (kind,)) and kind != list[str]


def meant(value: Any, kind: Any, key: str) -> Any:
    """Return what is meant by a value that :func:`read_yaml` returned.

    Args:
        value: it.
        kind: the type that its key has, see :func:`kind_of`.
        key: which that is, for errors.

    Raises:
        DoubtfulError: that is not clear.
    """
    if isinstance(value, dict):
        kinds = {}
        if dataclasses.is_dataclass(kind):
            kinds = {one.name: one.type for one in dataclasses.fields(kind)}
        parts = {str(name): one for name, one in value.items()}
        return {
            name: meant(one, kinds.get(name), f"{key}.{name}".lstrip("."))
            for name, one in parts.items()
        }
    if isinstance(value, list):
        of = typing.get_args(kind)[0] if typing.get_origin(kind) is list else None
        return [meant(one, of, f"{key}.{place}") for place, one in enumerate(value)]
    if not isinstance(value, Unquoted):
        return value
    if is_text(kind) and value in DOUBTFUL:
        raise DoubtfulError(
            f'{key}: {value} is nothing in YAML, and elsewhere a name: write null or "{value}"'
        )
    return of_text(value, kind)


def of_text(text: str, kind: Any) -> Any:
    """Return what is meant by an unquoted text; itself where the type does not allow it."""
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
