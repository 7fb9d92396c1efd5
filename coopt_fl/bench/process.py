"""Processes that measure on demand: apart from each other, and started beforehand."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from coopt_fl.bench.measure import Seconds
from coopt_fl.core.errors import CooptError

GRACE_SECONDS = 10.0

Prepare = Callable[[], AbstractContextManager[Seconds]]
"""Prepares some work; it must be possible to pickle it."""


@contextmanager
def children(work: Sequence[Prepare]) -> Iterator[list[Connection]]:
    """Start a process for each work, wait until all have done it once, end them at last."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        started = []
        for one in work:
            here, there = context.Pipe()
            with there:  # closed at once, so that reading here fails when the process ends
                process = context.Process(target=_serve, args=(one, there))
                process.start()
            stack.callback(_end, process)
            started.append(stack.enter_context(here))  # closed first, on which the process ends
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


def _end(process: SpawnProcess) -> None:
    """Let a process remove its files, and kill it where that takes too long."""
    process.join(GRACE_SECONDS)
    process.kill()
    process.join()
    process.close()


def _serve(prepare: Prepare, parent: Connection) -> None:
    """Do the work once to warm up, then once for each message, until nobody can send any."""
    with prepare() as work, suppress(EOFError, BrokenPipeError):
        while True:
            parent.send(work())
            parent.recv()
