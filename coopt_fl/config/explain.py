"""What each configuration key means and may be, for ``coopt config --explain``."""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

from coopt_fl.config.load import config_names
from coopt_fl.config.rules import BOUNDS, TYPES, all_keys, choices_of, nearest
from coopt_fl.config.schema import Config, ParticipantConfig
from coopt_fl.core.errors import ConfigError


def explain(wanted: Sequence[str] = ()) -> dict[str, Any]:
    """Explain the keys that are ``wanted`` and the sections that they are in.

    Args:
        wanted: keys such as ``student.lr``, or sections such as ``student``; none means all keys.
            List indices are ignored, as is everything from a ``=`` on.

    Returns:
        ``keys``: of each key its ``section``, ``meaning``, ``type``, ``nullable``, ``choices``,
        ``bounds`` (in words) and ``default``; ``sections``: what each section is about, by name,
        which is "" for the top level.

    Raises:
        ConfigError: there is no such key or section; the message names the nearest.
    """
    known = list(all_keys())
    wanted = [word for word in wanted if word not in config_names() and ".yaml" not in word]
    keys = [key for word in wanted for key in _named(word, known)] if wanted else known
    sections = {key.rpartition(".")[0] for key in keys}
    return {
        "keys": {key: _explained(key) for key in known if key in keys},
        "sections": {name: _about(name) for name in map(_section, known) if name in sections},
    }


def _named(word: str, known: Sequence[str]) -> list[str]:
    """Return the key or the keys of the section that ``word`` names."""
    parts = word.partition("=")[0].split(".")
    plain = ".".join("0" if part.isdigit() else part for part in parts)
    found = [key for key in known if key == plain or key.startswith(f"{plain}.")]
    if not found:
        same = [key for key in known if key.endswith(f".{plain}")]
        names = same or [*known, *dict.fromkeys(key.split(".")[0] for key in known)]
        raise ConfigError(
            f"there is no key {word!r}{nearest(plain, names)}; "
            "`coopt config --explain` shows all of them"
        )
    return found


def _explained(key: str) -> dict[str, Any]:
    section, _, name = key.rpartition(".")
    (field,) = (one for one in dataclasses.fields(_kind(section)) if one.name == name)
    kinds: list[Any] = [*typing.get_args(field.type)]
    if not kinds or field.type == list[str]:
        kinds = [field.type]
    rules = field.metadata
    return {
        "section": section,
        "meaning": rules["help"],
        "type": TYPES[kinds[0]],
        "nullable": len(kinds) > 1,
        "choices": choices_of(field),
        "bounds": [
            f"{words} {rules[rule]}" for rule, (words, _) in BOUNDS.items() if rule in rules
        ],
        "default": [] if field.default is dataclasses.MISSING else field.default,
    }


def _section(key: str) -> str:
    return key.rpartition(".")[0]


def _about(section: str) -> str:
    """Return the docstring of a section's dataclass as one paragraph."""
    return " ".join((_kind(section).__doc__ or "").replace("``", "`").split())


def _kind(section: str) -> Any:
    """Return the dataclass of a section."""
    kind: Any = Config
    for name in section.split(".") if section else []:
        kinds = {field.name: field.type for field in dataclasses.fields(kind)}
        if name == "participants":
            return ParticipantConfig
        kind = kinds[name]
    return kind
