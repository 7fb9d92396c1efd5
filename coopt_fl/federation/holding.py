"""Holding a run's directory: for one process at a time, and only with the run's settings."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coopt_fl.config.key import dataset_key, keyed
from coopt_fl.config.schema import Config
from coopt_fl.core import typed
from coopt_fl.core.errors import OutputError
from coopt_fl.core.files import is_folder, locked, remove_leftovers
from coopt_fl.core.log import LOG, logged
from coopt_fl.core.progress import Progress
from coopt_fl.data import Source, open_source
from coopt_fl.federation.state import AGAIN, RunState

BEFORE = ("command", "lock", LOG, "run.json")
"""Files that exist before any work; a state with nothing else is not yet a run."""
SHOWN = 8
"""How many differing settings an error lists."""


@dataclass(frozen=True)
class Run:
    """``run.json``: the dataset key, the settings that it hashes, and the image decoder.

    See :attr:`coopt_fl.data.Source.decoder`; runs of earlier versions have no decoder.
    """

    key: str
    config: dict[str, Any]
    decoder: str = field(default="", metadata={typed.LATER: True})


@contextmanager
def whole_run(out: Path, progress: Progress) -> Iterator[None]:
    """Hold ``out`` for one command, whose steps open the run one after another.

    ``progress`` records the seconds of phases in the state, and keeps a log there.

    Raises:
        OutputError: see :func:`open_state`.
    """
    state = RunState(out)
    _require_run(state)
    with (
        locked(state.folder / "command"),
        logged(state.folder, progress),
        progress.recording(state.add_seconds),
    ):
        state.begin_attempt()
        yield


@contextmanager
def open_run(config: Config, out: Path, progress: Progress) -> Iterator[tuple[Source, RunState]]:
    """Hold ``out`` for this process, and yield the data of a run and its state.

    ``progress`` records the seconds of phases in that state.

    Raises:
        DataError: the source cannot be opened.
        OutputError: see :func:`open_state`.
    """
    source = open_source(config.data)
    key = dataset_key(config, source.fingerprint)
    with (
        open_state(out, key, keyed(config), source.decoder) as state,
        progress.recording(state.add_seconds),
    ):
        yield source, state


@contextmanager
def open_state(
    out: Path, key: str, config: dict[str, Any], decoder: str = ""
) -> Iterator[RunState]:
    """Hold ``out`` for this process and yield its state.

    Args:
        out: the output directory: new, empty, or of an earlier run with the same key. A run that
            failed before it stored anything does not count.
        key: the dataset key.
        config: the configuration, stored beside the key.
        decoder: the image decoder, also stored; an unfinished run is refused with another one,
            whose pixels may differ.

    Raises:
        OutputError: the directory belongs to another run, holds something else, or is in use.
    """
    state = RunState(out)
    _require_run(state)
    with locked(state.folder / "lock"):
        remove_leftovers(state.folder)
        shutil.rmtree(state.arriving, ignore_errors=True)
        run = state.record("run", Run)
        if run is None or not _begun(state):
            state.save_record("run", {"key": key, "config": config, "decoder": decoder})
        elif run.key != key:
            raise OutputError(
                f"{out} belongs to a run with other settings or data "
                f"({_changes(run, config)}); {AGAIN}"
            )
        elif run.decoder != decoder and not state.published:
            before = run.decoder or "a version of coopt-fl that did not say by what"
            raise OutputError(
                f"{out} was begun with images decoded by {before}, and {decoder} may give other "
                f"pixels: finish it where it was begun, or {AGAIN}"
            )
        yield state


def _require_run(state: RunState) -> None:
    """Refuse a directory that is not empty and holds no run."""
    out = state.out
    if not is_folder(out, OutputError):
        return
    try:
        empty = not any(out.iterdir())
    except OSError as error:
        raise OutputError(
            f"{out} cannot be listed ({error.strerror}); give another --out"
        ) from error
    if not empty and not is_folder(state.folder, OutputError):
        raise OutputError(f"{out} is not empty and holds no run; give another --out")


def _begun(state: RunState) -> bool:
    """Whether anything but the files in ``BEFORE`` is stored."""
    return any(path.name not in BEFORE for path in state.folder.iterdir())


def _changes(run: Run, config: dict[str, Any]) -> str:
    """Return what differs between the stored and the present configuration, in words."""
    old, new = _flat(run.config), _flat(config)
    keys = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    shown = [f"{key}: {old.get(key)} there, {new.get(key)} here" for key in keys[:SHOWN]]
    if len(keys) > SHOWN:
        shown.append(f"and {len(keys) - SHOWN} more")
    return "; ".join(shown) or "the data differ"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict | list):
        return {prefix[:-1]: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    parts = [_flat(item, f"{prefix}{key}.") for key, item in items]
    return {name: leaf for part in parts for name, leaf in part.items()}
