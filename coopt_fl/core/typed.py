"""One decoder for whatever is read back: plain values in, dataclasses out, or one sentence.

A type is a dataclass, ``list[X]``, ``tuple[X, Y]``, ``dict[str, X]``, ``X | None``, ``int``,
``float``, ``str``, ``bool``, ``Any``, a numpy array such as ``NDArray[np.int64]``, or
``Annotated[X, Rule(...)]``. Only lists become tuples, and whole numbers floats; nothing else is
converted. Arrays are neither copied nor looked into.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from itertools import repeat
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from coopt_fl.core.errors import ConfigError, CooptError
from coopt_fl.core.files import AGAIN

T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """What a value must be beyond its type; ``words`` complete "FIELD is VALUE, not ..."."""

    holds: Callable[[Any], object]
    words: str


def within(least: float, most: float) -> Rule:
    """Return the rule that a number is from ``least`` to ``most``."""
    return Rule(lambda number: least <= number <= most, f"from {least} to {most}")


def matching(pattern: str, words: str) -> Rule:
    """Return the rule that a regular expression matches the whole of a text."""
    return Rule(re.compile(pattern).fullmatch, words)


INT64 = within(-(1 << 63), (1 << 63) - 1)
Count = Annotated[int, within(0, (1 << 63) - 1)]
Sha256 = Annotated[str, matching("[0-9a-f]{64}", "a sha256 sum")]

_SURROGATE = re.compile("[\ud800-\udfff]")
"""JSON can say half of a letter, which no file can hold."""

_WORDS = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "a whole number within int64",
    list: "a list",
    str: "text of whole letters",
}


@contextmanager
def _shallow() -> Iterator[None]:
    """Make a ValueError of what no recursion gets to the end of."""
    try:
        yield
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


@_shallow()
def decode(kind: type[T], value: Any, place: str = "") -> T:
    """Return ``value``, made of what JSON has and of numpy arrays, as a ``kind``.

    An object has the fields of its dataclass, no others; one with a default may be missing.

    Args:
        kind: what it should be.
        value: what was read.
        place: what errors call it; "" for a whole file or message.

    Raises:
        ValueError: it is none; the message names the field.
    """
    return cast(T, _decode(kind, value, place))


@_shallow()
def parse(kind: type[T], content: bytes) -> T:
    """Return the JSON in ``content`` as a ``kind``.

    Raises:
        ValueError: it holds none.
    """
    return decode(kind, json.loads(content))


def read(
    path: Path, kind: type[T], error: type[CooptError] = ConfigError, advice: str = AGAIN
) -> T:
    """Return the JSON in the file ``path`` as a ``kind``.

    Args:
        path: of the file.
        kind: what it should hold.
        error: raised where it cannot be read or holds something else.
        advice: what the user should do then, the end of the sentence.
    """
    try:
        return parse(kind, path.read_bytes())
    except (OSError, ValueError) as problem:
        raise error(f"{path} is damaged ({problem}); {advice}") from None


def _decode(kind: Any, value: Any, place: str) -> Any:
    """Return ``value``, which stands at ``place``, as a ``kind``."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        found, rule = _decode(args[0], value, place), args[1]
        if not rule.holds(found):
            raise _wrong(place, value, rule.words)
        return found
    if origin in (Union, UnionType):
        inner = next(one for one in args if one is not NoneType)
        return None if value is None else _decode(inner, value, place)
    if origin is np.ndarray:
        return _array(np.dtype(get_args(args[1])[0]), value, place)
    if origin is not None:
        return _container(origin, args, value, place)
    if is_dataclass(kind):
        return _record(kind, value, place)
    if kind is Any:
        return _anything(value, place)
    if kind is float and type(value) is int:
        return float(_exactly(int, value, place))
    return _exactly(kind, value, place)


def _exactly(kind: type, value: Any, place: str) -> Any:
    """Return ``value`` if it is a ``kind``, a number that int64 holds, text of whole letters."""
    fits = type(value) is kind
    if fits and kind is int:
        fits = INT64.holds(value) is True
    elif fits and kind is str:
        fits = not _SURROGATE.search(value)
    if not fits:
        raise _wrong(place, value, _WORDS[kind])
    return value


def _container(origin: type, args: tuple[Any, ...], value: Any, place: str) -> Any:
    """Return a dict, a list or a tuple of decoded values."""
    if origin is dict:
        return {
            _exactly(str, key, place): _decode(args[1], item, f"{place}[{key!r:.60}]")
            for key, item in _exactly(dict, value, place).items()
        }
    items = _exactly(list, value, place)
    if origin is tuple and len(items) != len(args):
        raise _wrong(place, value, f"a list of {len(args)}")
    kinds = args if origin is tuple else repeat(args[0])
    pairs = enumerate(zip(kinds, items, strict=False))
    return origin(_decode(kind, item, f"{place}[{index}]") for index, (kind, item) in pairs)


def _record(kind: Any, value: Any, place: str) -> Any:
    """Return an instance of the dataclass ``kind``."""
    hints, optional = _fields(kind)
    different = (_exactly(dict, value, place).keys() ^ hints.keys()) - optional
    if different:
        keys = ", ".join(sorted(map(repr, different)))
        raise ValueError(f"{_named(place)}: keys differ, {keys:.200}")
    return kind(
        **{name: _decode(hints[name], item, f"{place}.{name}") for name, item in value.items()}
    )


@cache
def _fields(kind: type[Any]) -> tuple[dict[str, Any], set[str]]:
    """Return the types of a dataclass's fields, and those that have a default."""
    optional = {field.name for field in fields(kind) if field.default is not MISSING}
    return get_type_hints(kind, include_extras=True), optional


def _array(dtype: np.dtype[Any], value: Any, place: str) -> Any:
    """Return ``value`` if it is an array of the very dtype and has at least a length."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        came = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{_named(place)} is {came}, not {dtype}")
    if value.ndim == 0:
        raise ValueError(f"{_named(place)} is a single number, not an array of them")
    return value


def _anything(value: Any, place: str) -> Any:
    """Return ``value`` if it can be written as JSON."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError) as problem:
        raise ValueError(f"{_named(place)} cannot be written as JSON ({problem})") from None
    return value


def _wrong(place: str, value: Any, words: str) -> ValueError:
    return ValueError(f"{_named(place)} is {str(value)[:40]!r}, not {words}")


def _named(place: str) -> str:
    return place.lstrip(".") or "it"
