"""Objects of the calling program, for the processes that work for it on this host.

Each is pickled once, into a private folder that an environment variable names, and unpickled once
in each process. No message can name such an object's file: only a program's own processes have
the variable.
"""

import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import cloudpickle

from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import atomic
from coopt_fl.registry import PARTS

VARIABLE = "COOPT_GIVEN"
_PARTS = "parts"


@contextmanager
def given(objects: Mapping[str, Any]) -> Iterator[None]:
    """Let :func:`taken` find ``objects`` by name until the block ends, here and in processes.

    The parts that this program registered are found there, too, by :func:`take_parts`.

    Raises:
        ConfigError: one of them cannot be pickled.
    """
    own = [part for part in PARTS.all() if not part.shipped]
    if not objects and not own:
        yield
        return
    before = os.environ.get(VARIABLE)
    with tempfile.TemporaryDirectory(prefix="coopt-") as folder:  # that nobody else can read
        for name, made in {**objects, _PARTS: own}.items():
            with atomic(Path(folder) / name) as file:
                file.write(_pickled(name, made))
        os.environ[VARIABLE] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before


def taken(name: str) -> Any:
    """Return an object by its name.

    Raises:
        ConfigError: the program that this process works for gave none of that name.
    """
    folder = os.environ.get(VARIABLE)
    if folder is None or not (Path(folder) / name).is_file():
        raise ConfigError(
            f"{name} is an object of the program that began this run: call coopt_fl.run there again"
        )
    return _unpickled(folder, name)


def take_parts() -> None:
    """Register what the program that this process works for has registered."""
    if folder := os.environ.get(VARIABLE):
        for part in _unpickled(folder, _PARTS):
            if not PARTS.has(part.kind, part.name):
                PARTS.add(part)


@lru_cache(maxsize=64)
def _unpickled(folder: str, name: str) -> Any:
    return pickle.loads((Path(folder) / name).read_bytes())


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
