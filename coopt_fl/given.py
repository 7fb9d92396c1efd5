"""Pass objects of the calling program to its worker processes on this host.

Each object is pickled once, into a private folder that an environment variable names, and unpickled
once in each process. A message can name an object in that folder, but no other file.
"""

import os
import pickle
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import cloudpickle

from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import atomic
from coopt_fl.plugins import load_plugins
from coopt_fl.registry import PARTS

VARIABLE = "COOPT_GIVEN"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}@[0-9a-f]{64}")
"""An object's name: a readable part, and its sha256."""

_PARTS = "parts"
_ONE = threading.Lock()


@contextmanager
def given(objects: Mapping[str, Any]) -> Iterator[None]:
    """Make ``objects`` available to :func:`taken`, here and in child processes, in this block.

    The parts that this program registered are available as well, to :func:`take_parts`.

    Raises:
        ConfigError: an object cannot be pickled, or another thread is in such a block.
    """
    own = [part for part in PARTS.all() if not part.shipped and not part.plugin]
    if not objects and not own:
        yield
        return
    if not _ONE.acquire(blocking=False):
        raise ConfigError(
            "another thread of this program is at a run with Python objects; start one such run "
            "at a time"
        )
    try:
        with tempfile.TemporaryDirectory(prefix="coopt-") as folder:  # readable by this user alone
            for name, made in {**objects, _PARTS: own}.items():
                with atomic(Path(folder) / name) as file:
                    file.write(_pickled(name, made))
            os.environ[VARIABLE] = folder
            yield
    finally:
        os.environ.pop(VARIABLE, None)
        _unpickled.cache_clear()
        _ONE.release()


def taken(name: str) -> Any:
    """Return an object of the calling program by its name.

    Raises:
        ConfigError: the calling program passed no object of that name.
    """
    folder = os.environ.get(VARIABLE)
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} names no object of a program: expected NAME@SHA256")
    if folder is None or not (Path(folder) / name).is_file():
        raise ConfigError(
            f"{name} is an object of the program that began this run, and not available here: "
            "call coopt_fl.run in that program again"
        )
    return _unpickled(folder, name)


def take_parts(plugins: Sequence[str]) -> None:
    """Register the parts that the calling program has registered.

    Args:
        plugins: those of the run; imported first, since the program's parts may depend on them.

    Raises:
        ConfigError: something cannot be imported here.
    """
    load_plugins(plugins)
    if folder := os.environ.get(VARIABLE):
        for part in _unpickled(folder, _PARTS):
            if not PARTS.has(part.kind, part.name):
                PARTS.add(part)


@lru_cache(maxsize=64)
def _unpickled(folder: str, name: str) -> Any:
    try:
        return pickle.loads((Path(folder) / name).read_bytes())
    except Exception as error:  # an object may raise anything when it is rebuilt
        raise ConfigError(
            f"{name} of the program cannot be unpickled in another process "
            f"({type(error).__name__}: {' '.join(str(error).split())}); define it in the program "
            "itself, or in a module that Python finds"
        ) from error


def _pickled(name: str, made: Any) -> bytes:
    try:
        pickled: bytes = cloudpickle.dumps(made)
        return pickled
    except Exception as error:  # an object may raise anything when it is pickled
        what = "a registered part" if name == _PARTS else name
        raise ConfigError(
            f"{what} cannot be pickled, which other processes need ({type(error).__name__}: "
            f"{' '.join(str(error).split())}); define it in a module, without open files or locks"
        ) from error
