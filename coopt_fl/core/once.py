"""Memoisation that lasts until a block ends."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_KNOWN: ContextVar[dict[Hashable, Any] | None] = ContextVar("known", default=None)


@contextmanager
def read_once() -> Iterator[None]:
    """Memoise :func:`once` until the block ends; a nested block shares the values."""
    token = _KNOWN.set({} if (known := _KNOWN.get()) is None else known)
    try:
        yield
    finally:
        _KNOWN.reset(token)


def once(key: Hashable, make: Callable[[], T]) -> T:
    """Return ``make()``; within a block of :func:`read_once` it is called once for each ``key``."""
    known = _KNOWN.get()
    if known is None:
        return make()
    if key not in known:
        known[key] = make()
    made: T = known[key]
    return made
