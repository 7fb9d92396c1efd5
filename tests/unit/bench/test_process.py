"""Measuring processes leave neither processes nor files behind."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from coopt_fl.bench.process import children, together
from coopt_fl.core.errors import CooptError

Seconds = Callable[[], float]
"""That of ``coopt_fl.bench.measure``, which imports torch, as each process would."""


@contextmanager
def second() -> Iterator[Seconds]:
    yield lambda: 1.0


@contextmanager
def with_a_file(path: Path) -> Iterator[Seconds]:
    path.touch()
    yield lambda: 1.0
    path.unlink()


@contextmanager
def failing() -> Iterator[Seconds]:
    raise SystemExit(0)
    yield lambda: 1.0


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_neither_processes_nor_connections_are_left() -> None:
    resource_tracker.ensure_running()  # multiprocessing's own
    before = open_files()
    with children([second, second]) as two:
        assert together(two) == [1.0, 1.0]
    assert (multiprocessing.active_children(), open_files()) == ([], before)


def test_what_a_process_made_for_its_work_is_removed(tmp_path: Path) -> None:
    with children([partial(with_a_file, tmp_path / "file")]):
        assert (tmp_path / "file").exists()
    assert list(tmp_path.iterdir()) == []


def test_nor_when_one_ends_too_early() -> None:
    before = open_files()
    with pytest.raises(CooptError, match="ended too early"), children([second, failing]):
        pass
    assert (multiprocessing.active_children(), open_files()) == ([], before)
