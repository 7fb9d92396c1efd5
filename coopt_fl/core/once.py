"""What is read once until a block ends, however often it is asked for meanwhile."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_KNOWN: ContextVar[dict[Hashable, Any] | None] = ContextVar("known", default=None)


@contextmanager
def read_once() -> Iterator[None]:
    """Until the block ends, let :func:`once` make nothing twice; a block inside adds to it."""
    token = _KNOWN.set({} if (known := _KNOWN.get()) is None else known)
    try:
        yield
    finally:
        _KNOWN.reset(token)


def once(key: Hashable, make: Callable[[], T]) -> T:
    """Return what ``make`` returns for ``key``, in a block of :func:`read_once` made only once."""
    known = _KNOWN.get()
    if known is None:
        return make()
    if key not in known:
        known[key] = make()
    made: T = known[key]
    return made
