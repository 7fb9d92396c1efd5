"""Objects of the calling program, for the processes that work for it on this host.

Each is pickled once, into a private folder that an environment variable names, and unpickled once
in each process. A message may name an object of that folder, but no other file.
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
"""Of an object: a name for people, and its sha256."""

_PARTS = "parts"
_ONE = threading.Lock()


@contextmanager
def given(objects: Mapping[str, Any]) -> Iterator[None]:
    """Let :func:`taken` find ``objects`` by name until the block ends, here and in processes.

    The parts that this program registered are found there, too, by :func:`take_parts`.

    Raises:
        ConfigError: one of them cannot be pickled, or another thread is giving some.
    """
    own = [part for part in PARTS.all() if not part.shipped and not part.plugin]
    if not objects and not own:
        yield
        return
    if not _ONE.acquire(blocking=False):
        raise ConfigError(
            "another thread of this program is at a run with objects of its own; one at a time"
        )
    try:
        with tempfile.TemporaryDirectory(prefix="coopt-") as folder:  # that nobody else can read
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
    """Return an object by its name.

    Raises:
        ConfigError: the program that this process works for gave none of that name.
    """
    folder = os.environ.get(VARIABLE)
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} names no object of a program: NAME@SHA256")
    if folder is None or not (Path(folder) / name).is_file():
        raise ConfigError(
            f"{name} is an object of the program that began this run: call coopt_fl.run there again"
        )
    return _unpickled(folder, name)


def take_parts(plugins: Sequence[str]) -> None:
    """Register what the program that this process works for has registered.

    Args:
        plugins: of the run; they are imported first, since the program's parts may build on them.

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
    except Exception as error:  # whatever an object raises that cannot be made anew
        raise ConfigError(
            f"{name} of the program cannot be unpickled in another process "
            f"({type(error).__name__}: {' '.join(str(error).split())}); define it in the program "
            "itself, or in a module that Python finds"
        ) from error


def _pickled(name: str, made: Any) -> bytes:
    try:
        pickled: bytes = cloudpickle.dumps(made)
        return pickled
    except Exception as error:  # whatever an object raises that refuses
        what = "a registered part" if name == _PARTS else name
        raise ConfigError(
            f"{what} cannot be pickled, which other processes need ({type(error).__name__}: "
            f"{' '.join(str(error).split())}); define it in a module, without open files or locks"
        ) from error
