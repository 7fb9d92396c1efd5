"""Processes that measure on demand: apart from each other, and started beforehand."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing.connection import Connection

from coopt_fl.bench.measure import Seconds
from coopt_fl.core.errors import CooptError

Prepare = Callable[[], AbstractContextManager[Seconds]]
"""Prepares some work; it must be possible to pickle it."""


@contextmanager
def children(work: Sequence[Prepare]) -> Iterator[list[Connection]]:
    """Start a process for each work, wait until all have done it once, kill them at last."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        started = []
        for one in work:
            here, there = context.Pipe()
            started.append(stack.enter_context(here))
            with there:  # closed at once, so that reading here fails when the process ends
                process = context.Process(target=_serve, args=(one, there))
                process.start()
            stack.callback(process.close)
            stack.callback(process.join)
            stack.callback(process.kill)
        for child in started:
            _answer(child)
        yield started


def together(some: Sequence[Connection]) -> list[float]:
    """Let children measure at the same time; return what each took."""
    for child in some:
        child.send(None)
    return [_answer(child) for child in some]


def _answer(child: Connection) -> float:
    try:
        return float(child.recv())
    except EOFError:
        problem = "a process that measures ended too early; its own error is above"
        raise CooptError(problem) from None


def _serve(prepare: Prepare, parent: Connection) -> None:
    """Do the work once to warm up, then once for each message."""
    with prepare() as work:
        while True:
            parent.send(work())
            parent.recv()
