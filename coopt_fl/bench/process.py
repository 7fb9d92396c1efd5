"""Separate child processes, started beforehand, that measure on demand."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING

from coopt_fl.core.errors import CooptError

if TYPE_CHECKING:
    from coopt_fl.bench.measure import Seconds

GRACE_SECONDS = 10.0

Prepare = Callable[[], AbstractContextManager["Seconds"]]
"""A picklable function that prepares some work and yields it as a timed function."""


@contextmanager
def children(work: Sequence[Prepare]) -> Iterator[list[Connection]]:
    """Start a process for each work, and wait until each has run once; end them after the block."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        started = []
        for one in work:
            here, there = context.Pipe()
            with there:  # closed at once, so that reading here fails when the process ends
                process = context.Process(target=_serve, args=(one, there))
                process.start()
            stack.callback(_end, process)
            started.append(stack.enter_context(here))  # closed first, so that the process ends
        for child in started:
            _answer(child)
        yield started


def together(some: Sequence[Connection]) -> list[float]:
    """Let children measure concurrently; return the seconds of each.

    Raises:
        CooptError: a child ended too early.
    """
    for child in some:
        child.send(None)
    return [_answer(child) for child in some]


def _answer(child: Connection) -> float:
    try:
        return float(child.recv())
    except EOFError:
        problem = "a measuring process ended too early; its own error message is above"
        raise CooptError(problem) from None


def _end(process: SpawnProcess) -> None:
    """Wait for a process to clean up, and kill it after ``GRACE_SECONDS``."""
    process.join(GRACE_SECONDS)
    process.kill()
    process.join()
    process.close()


def _serve(prepare: Prepare, parent: Connection) -> None:
    """Do the work once to warm up, then once for each message, until the pipe is closed."""
    with prepare() as work, suppress(EOFError, BrokenPipeError):
        while True:
            parent.send(work())
            parent.recv()
