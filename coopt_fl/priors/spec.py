"""The text that names a prior: ``SCHEME:NAME?OPTION=VALUE``."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from coopt_fl.core.errors import PriorError
from coopt_fl.registry import PARTS

NOTHING = "nothing to license"
"""Stands for the licence of priors without trained weights."""


@dataclass(frozen=True)
class PriorSpec:
    """A parsed spec; there may be no such prior.

    Attributes:
        scheme: the part before the colon, such as ``"timm"``.
        name: the part behind it, which the scheme interprets.
        size: side of the input in pixels; None for the model's own.
        seed: seed of ``random`` weights; None for one derived from the name.
    """

    scheme: str
    name: str
    size: int | None = None
    seed: int | None = None


def parse_prior(spec: str) -> PriorSpec:
    """Parse a spec; only its syntax is checked.

    Raises:
        PriorError: unknown scheme, missing name, unknown or impossible option.
    """
    body, _, tail = spec.partition("?")
    scheme, _, name = body.partition(":")
    if not PARTS.has("prior", scheme) or "@" in scheme:
        hint = nearest(scheme, PARTS.names("prior"))
        raise PriorError(
            f"prior {spec!r}: no scheme {scheme!r}{hint}; a prior is one of {', '.join(forms())}"
        )
    kind, options = PARTS.find("prior", scheme), dict[str, int]()
    if not name:
        raise PriorError(f"prior {spec!r}: a name is missing; write {kind.fact('form')}")
    known = kind.fact("options")
    for part in filter(None, tail.split("&")):
        key, _, value = part.partition("=")
        least = 1 if key == "size" else 0
        if key not in known:
            has = ", ".join(known) or "none"
            raise PriorError(f"prior {spec!r}: no option {key!r}; {scheme} has: {has}")
        if key in options:
            raise PriorError(f"prior {spec!r}: {key} is given twice; give it once")
        if not value.isdecimal() or int(value) < least:
            raise PriorError(f"prior {spec!r}: {key} must be a whole number from {least} on")
        options[key] = int(value)
    return PriorSpec(scheme, name, **options)


def forms() -> list[str]:
    """Return the form of each scheme's specs, for messages and help."""
    return [str(form) for part in PARTS.parts("prior") if (form := part.fact("form"))]


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a hint at those of ``words`` that resemble ``word``: "" or " (nearest: a, b)"."""
    close = difflib.get_close_matches(word, set(words), n=3, cutoff=0.5)
    return f" (nearest: {', '.join(close)})" if close else ""
