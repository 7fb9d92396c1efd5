"""Decode plain values that were read back into typed ones; an error is one sentence.

A type is a dataclass, ``list[X]``, ``tuple[X, Y]``, ``dict[str, X]``, ``X | None``, ``int``,
``float``, ``str``, ``bool``, ``Any``, a numpy array such as ``NDArray[np.int64]``, or
``Annotated[X, Rule(...)]``. Lists become tuples and whole numbers floats where the type says so;
nothing else is converted. Arrays are not copied, and their values are not checked.
"""

import json
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np

from coopt_fl.core.errors import ConfigError, CooptError
from coopt_fl.core.files import AGAIN, read_regular

T = TypeVar("T")

LATER = "later"
"""Metadata key of a field, with a default, that was added later: older files do not have it."""


@dataclass(frozen=True)
class Rule:
    """A condition on a value beyond its type; ``words`` complete "FIELD is VALUE, not ..."."""

    holds: Callable[[Any], object]
    words: str


MOST_WORDS = 2000
"""Most characters kept of a participant's error message or description of itself."""

MARKUP = "`|<>"
"""Characters that could become markup where a participant's text is published."""


def within(least: float, most: float) -> Rule:
    """Return the rule that a number is from ``least`` to ``most``."""
    return Rule(lambda number: least <= number <= most, f"from {least} to {most}")


def plain_words(text: str) -> str:
    """Return untrusted ``text`` as one line without control characters and markup."""
    return "".join(
        letter if letter.isprintable() and letter not in MARKUP else " "
        for letter in text[:MOST_WORDS]
    )


PLAIN = Rule(
    lambda text: plain_words(str(text)) == str(text),
    f"at most {MOST_WORDS} printable letters without {MARKUP}",
)


MOST_LICENCE = 100
"""Most characters of a licence statement: a name, or the URL of the licence's text."""

_PATH = re.compile(r"[/~.\\]|[A-Za-z]:[/\\]|file:")

LICENCE = Rule(
    lambda text: (
        0 < len(text) <= MOST_LICENCE and plain_words(text) == text and not _PATH.match(text)
    ),
    f"1 to {MOST_LICENCE} printable letters without {MARKUP}, and no path: it is published",
)


def matching(pattern: str, words: str) -> Rule:
    """Return the rule that a regular expression matches the whole of a text."""
    return Rule(re.compile(pattern).fullmatch, words)


Count = Annotated[int, within(0, (1 << 63) - 1)]
Sha256 = Annotated[str, matching("[0-9a-f]{64}", "a sha256 sum")]

_ALWAYS = {
    int: within(-(1 << 63), (1 << 63) - 1),
    str: matching("[^\ud800-\udfff]*", "text: JSON can say half of a letter, no file can hold it"),
}


def read(
    path: Path, kind: type[T], error: type[CooptError] = ConfigError, advice: str = AGAIN
) -> T:
    """Return the JSON in the file ``path`` as a ``kind``.

    Raises:
        error: it cannot be read, or is no ``kind``; the message ends with ``advice``.
    """
    try:
        return parse(kind, read_regular(path))
    except (OSError, ValueError) as problem:
        raise error(f"{path} is damaged ({problem}); {advice}") from None


def parse(kind: type[T], content: bytes) -> T:
    """Return the JSON in ``content`` as a ``kind``; raise ValueError if it is none."""
    try:
        return decode(kind, json.loads(content))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def decode(kind: type[T], value: Any, place: str = "it") -> T:
    """Return ``value``, made of JSON's types and numpy arrays, as a ``kind``.

    Raises:
        ValueError: it is none; the message names the field, and calls the whole value ``place``.
    """
    return cast(T, _decode(kind, value, place))


def _decode(kind: Any, value: Any, place: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _obeying(args[1], _decode(args[0], value, place), place)
    if origin is UnionType:
        inner = next(arg for arg in args if arg is not NoneType)
        return None if value is None else _decode(inner, value, place)
    if origin is dict:
        return {
            _exactly(str, key, place): _decode(args[1], item, f"{place}[{key!r:.60}]")
            for key, item in _exactly(dict, value, place).items()
        }
    if origin in (list, tuple):
        return origin(_items(args, _exactly(list, value, place), place, origin is tuple))
    if origin is np.ndarray:
        return _array(np.dtype(get_args(args[1])[0]), value, place)
    if is_dataclass(kind):
        return _record(kind, _exactly(dict, value, place), place)
    if kind is Any:
        return _anything(value, place)
    if kind is float and type(value) is int:
        return float(_exactly(int, value, place))
    return _exactly(kind, value, place)


def _exactly(kind: type, value: Any, place: str) -> Any:
    """Return ``value`` if its type is exactly ``kind``: True is not an int."""
    if type(value) is not kind:
        raise _wrong(place, value, kind.__name__)
    return _obeying(_ALWAYS[kind], value, place) if kind in _ALWAYS else value


def _obeying(rule: Rule, value: Any, place: str) -> Any:
    if not rule.holds(value):
        raise _wrong(place, value, rule.words)
    return value


def _items(args: tuple[Any, ...], items: list[Any], place: str, fixed: bool) -> list[Any]:
    """Return the decoded items of a list, or of a tuple, whose length is ``fixed``."""
    if fixed and len(items) != len(args):
        raise _wrong(place, items, f"a list of {len(args)}")
    kinds = args if fixed else args * len(items)
    pairs = zip(kinds, items, strict=True)
    return [_decode(kind, item, f"{place}[{n}]") for n, (kind, item) in enumerate(pairs)]


def _record(kind: Any, value: dict[str, Any], place: str) -> Any:
    """Return an instance of the dataclass ``kind``; only fields marked ``LATER`` may be missing."""
    hints = _hints(kind)
    absent = {field.name for field in fields(kind) if LATER in field.metadata} - value.keys()
    if different := value.keys() ^ (hints.keys() - absent):
        raise ValueError(f"{place}: keys differ, {reprlib.repr(sorted(different))}")
    inside = "" if place == "it" else f"{place}."
    given = [name for name in hints if name in value]
    return kind(**{name: _decode(hints[name], value[name], inside + name) for name in given})


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _array(dtype: np.dtype[Any], value: Any, place: str) -> Any:
    """Return ``value`` if it is an array of exactly this dtype with at least one dimension."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        came = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{place} is {came}, not an array of {dtype}")
    if value.ndim == 0:
        raise ValueError(f"{place} is a single number, not an array of them")
    return value


def _anything(value: Any, place: str) -> Any:
    """Return ``value`` if it can be written as JSON."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise ValueError(f"{place} cannot be written as JSON ({problem})") from None
    return value


def _wrong(place: str, value: Any, words: str) -> ValueError:
    return ValueError(f"{place} is {reprlib.repr(value)}, not {words}")
