"""Processes that measure when they are told to: apart from each other, and started beforehand."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from coopt_fl.bench.timing import Seconds
from coopt_fl.core.errors import CooptError

READY = "ready"


class Child:
    """``python -m MODULE ARGUMENTS``, not of the current folder, that answers by :func:`serve`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._line()

    def begin(self) -> None:
        """Let it measure once more."""
        assert self._process.stdin is not None
        print("again", file=self._process.stdin, flush=True)

    def seconds(self) -> float:
        """Wait for the measurement and return it."""
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CooptError("a process that measures ended too early; its own error is above")
        return line


@contextmanager
def children(module: str, arguments: Sequence[Sequence[str]]) -> Iterator[list[Child]]:
    """Start a child for each of ``arguments``, wait until all are ready, end them at last."""
    with ExitStack() as stack:
        processes = []
        for words in arguments:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        yield [Child(process) for process in processes]


def together(some: Sequence[Child]) -> list[float]:
    """Let children measure at the same time; return what each took."""
    for child in some:
        child.begin()
    return [child.seconds() for child in some]


def serve(work: Seconds) -> None:
    """Do ``work`` once, say that all is ready, then measure for each line of the input."""
    work()
    print(READY, flush=True)
    for _ in sys.stdin:
        print(work(), flush=True)
