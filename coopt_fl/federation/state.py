"""``DIR/state``: the platform's records, stored so that a killed process loses nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core import typed
from coopt_fl.core.errors import DataError, OutputError
from coopt_fl.core.files import ONE_AT_A_TIME, adopt, atomic, make_folder, write_json
from coopt_fl.data.blocks import among
from coopt_fl.federation.units import Rows, read_unit, unit_file
from coopt_fl.optimized.block import Block, rows_digest

BLOCK_ARRAYS = ["ids", "targets", "participants", "skipped", "seconds", "digest"]
ADOPTED_ARRAYS = ["width", "mine", "compared", "skipped", "seconds", "digest"]
"""Beside an adopted unit's rows: ``mine`` marks the block's, ``compared`` those to audit."""
RETRY = "delete that file, then run the same command again"
SETTLED = ("order", "shared_targets")
"""Arrays on which other stored files depend, so they cannot be computed again."""
Ids = NDArray[np.int64]
T = TypeVar("T")
AGAIN = "give another --out, or delete that directory to start anew"


class RunState:
    """Records, arrays and blocks of one run, each written atomically and read back on resume."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / "state"

    @property
    def dataset(self) -> Path:
        """The folder of the published dataset."""
        return self.out / "dataset"

    @property
    def published(self) -> bool:
        """Whether the dataset is published: its provenance is written last."""
        return (self.dataset / "provenance.json").exists()

    def record(self, name: str, kind: type[T]) -> T | None:
        """Return a stored JSON value as a ``kind``, see :mod:`coopt_fl.core.typed`, or None."""
        path = self.folder / f"{name}.json"
        return typed.read(path, kind, OutputError, AGAIN) if path.exists() else None

    def save_record(self, name: str, value: Any) -> None:
        """Store a JSON value."""
        write_json(self.folder / f"{name}.json", value)

    def arrays(
        self, name: str, settled: bool = False, only: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]] | None:
        """Return stored arrays by name, or None.

        Args:
            name: the file, without its ending.
            settled: whether other stored files depend on them, as on those in ``SETTLED``.
            only: names of the arrays to read; None: all.
        """
        path = self._npz(name)
        advice = AGAIN if settled or name in SETTLED else RETRY
        return _load(path, only, advice) if path.exists() else None

    def has_arrays(self, name: str) -> bool:
        """Whether arrays are stored under ``name``, completely, since writes are atomic."""
        return self._npz(name).exists()

    def save_arrays(self, name: str, **arrays: Any) -> None:
        """Store arrays, or values that numpy makes arrays of, under ``name`` or ``folder/name``."""
        path = self._npz(name)
        make_folder(path.parent)
        with atomic(path) as file:
            np.savez(file, **arrays)

    @property
    def arriving(self) -> Path:
        """The folder in which participants on this host leave units; empty between runs."""
        return self.folder / "arriving"

    def has_block(self, index: int) -> bool:
        """Whether the block is there."""
        return self.has_arrays(_block_name(index))

    def remove_block(self, index: int) -> None:
        """Remove a block whose contributor was rejected.

        Raises:
            OutputError: a file cannot be removed.
        """
        path = self._npz(_block_name(index))
        try:
            path.unlink(missing_ok=True)
            self._rows(index).unlink(missing_ok=True)
            self._npz(_audit_name(index)).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove {path}: {error.strerror}; {RETRY}") from error

    def has_unit(self, index: int) -> bool:
        """Whether a block and the audit rows of its unit are stored."""
        compared = self.has_arrays(_audit_name(index)) or self._rows(index).exists()
        return compared and self.has_block(index)

    def save_unit(self, index: int, unit: Block, block: Ids, audited: Ids) -> None:
        """Store the audit rows of a unit, then the rows of its block.

        Args:
            index: of the block.
            unit: targets of the block's samples and of those that are audited with it.
            block: the ids of the block.
            audited: the ids that are asked for with any other block, ascending.
        """
        mine = np.isin(unit.ids, block)
        compared = ~mine | among(unit.ids, audited)
        self.save_arrays(_audit_name(index), ids=unit.ids[compared], targets=unit.targets[compared])
        share = float(mine.sum()) / max(len(unit.ids), 1)
        own = Block(
            unit.ids[mine],
            unit.targets[mine],
            unit.participants[mine],
            unit.skipped[np.isin(unit.skipped, block)],
            unit.seconds * share,
        )
        self.save_block(index, own)

    def adopt_unit(
        self, file: Path, index: int, unit: Block, digest: str, block: Ids, audited: Ids
    ) -> None:
        """Store a unit as :meth:`save_unit` does, but rename ``file`` instead of writing its rows.

        Args:
            file: the rows of the unit, checked and synced, on the file system of this folder.
            index: of the block.
            unit: what is in the file.
            digest: the sha256 of the file.
            block: the ids of the block.
            audited: the ids that are asked for with any other block, ascending.
        """
        rows, mine = self._rows(index), np.isin(unit.ids, block)
        make_folder(rows.parent)
        adopt(file, rows)
        self._npz(_audit_name(index)).unlink(missing_ok=True)  # left by an earlier owner
        self.save_arrays(
            _block_name(index),
            width=unit.targets.shape[1],
            mine=mine,
            compared=~mine | among(unit.ids, audited),
            skipped=unit.skipped[np.isin(unit.skipped, block)],
            seconds=unit.seconds * float(mine.sum()) / max(len(unit.ids), 1),
            digest=digest.encode(),
        )

    def audit_rows(self, index: int) -> tuple[Ids, NDArray[np.float16]]:
        """Return the ids (R,), ascending, and targets (R, n) of a unit's audit rows.

        Raises:
            OutputError: they are missing.
        """
        if not self._rows(index).exists():
            kept = self.arrays(_audit_name(index))
        else:
            about = _load(self._npz(_block_name(index)), ADOPTED_ARRAYS)
            rows = self._adopted(index, about)[about["compared"]]
            kept = {"ids": rows["id"], "targets": rows["target"]}
        if kept is None:
            raise OutputError(f"the audit rows of block {index} are missing; give another --out")
        return kept["ids"], kept["targets"]

    def missing_blocks(self, total: int) -> list[int]:
        """Return the indexes of the blocks that are not stored yet."""
        return [index for index in range(total) if not self.has_block(index)]

    def save_block(self, index: int, block: Block) -> None:
        """Store a block with its digest."""
        rows = self._rows(index)
        try:  # left if the process died between the two steps of adopt_unit
            rows.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove {rows}: {error.strerror}; {RETRY}") from error
        self.save_arrays(
            _block_name(index),
            ids=block.ids,
            targets=block.targets,
            participants=block.participants,
            skipped=block.skipped,
            seconds=block.seconds,
            digest=block.digest.encode(),
        )

    def block(self, index: int) -> Block:
        """Return a stored block.

        Raises:
            OutputError: it is missing or damaged.
        """
        path = self._npz(_block_name(index))
        if not path.exists():
            raise OutputError(f"{path} is missing; run the same command again")
        if self._rows(index).exists():
            return self._adopted_block(index)
        ids, targets, participants, skipped, seconds, digest = _load(path, BLOCK_ARRAYS).values()
        block = Block(ids, targets, participants, skipped, float(seconds))
        if block.digest != digest.item().decode():
            raise OutputError(f"{path} is damaged; {RETRY}")
        return block

    def block_seconds(self, index: int) -> float:
        """Return the seconds that a stored block took, without reading its targets."""
        return float(_load(self._npz(_block_name(index)), ["seconds"])["seconds"])

    def add_seconds(self, phase: str, seconds: float) -> None:
        """Add to the seconds of a phase in this attempt."""
        attempts = self.attempts() or [{}]
        attempts[-1][phase] = attempts[-1].get(phase, 0.0) + seconds
        self.save_record("seconds", attempts)

    def attempts(self) -> list[dict[str, float]]:
        """Return the seconds of each phase in every attempt at this run, the latest one last.

        Earlier versions stored one sum of all attempts, which counts as the first one here.
        """
        stored: Any = self.record("seconds", Any) or []
        attempts = [stored] if isinstance(stored, dict) else stored
        try:
            return typed.decode(list[dict[str, float]], attempts)
        except ValueError as error:
            path = self.folder / "seconds.json"
            raise OutputError(f"{path} is damaged ({error}); {RETRY}") from None

    def begin_attempt(self) -> None:
        """Begin an attempt, whose seconds are counted apart from those of earlier ones."""
        attempts = self.attempts()
        if attempts and attempts[-1]:
            self.save_record("seconds", [*attempts, {}])

    def _adopted_block(self, index: int) -> Block:
        about = _load(self._npz(_block_name(index)), ADOPTED_ARRAYS)
        rows = self._adopted(index, about)[about["mine"]]
        return Block(
            np.ascontiguousarray(rows["id"]),
            np.ascontiguousarray(rows["target"]),
            np.ascontiguousarray(rows["participant"]),
            about["skipped"],
            float(about["seconds"]),
        )

    def _adopted(self, index: int, about: Mapping[str, NDArray[Any]]) -> Rows:
        """Return the rows of a unit that was adopted.

        Raises:
            OutputError: they are missing or damaged.
        """
        path = self._rows(index)
        try:
            rows = read_unit(path, int(about["width"]), len(about["mine"]))
        except DataError as error:
            raise OutputError(f"{error}; {RETRY}") from error
        if rows_digest(rows) != about["digest"].item().decode():
            raise OutputError(f"{path} is damaged; {RETRY}")
        return rows

    def _rows(self, index: int) -> Path:
        return unit_file(self.folder / "blocks", index)

    def _npz(self, name: str) -> Path:
        return self.folder / f"{name}.npz"


def _audit_name(index: int) -> str:
    return f"audit/{index:07d}"


def _block_name(index: int) -> str:
    return f"blocks/{index:07d}"


def _load(
    path: Path, names: Sequence[str] | None = None, advice: str = RETRY
) -> dict[str, NDArray[Any]]:
    """Return the arrays ``names`` (default: all) of a file."""
    try:
        if not path.is_file():  # opening a pipe would block
            raise ValueError("it is no regular file")
        with ONE_AT_A_TIME, np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names or stored.files}
    except Exception as error:  # damaged archives make zipfile and numpy raise nearly anything
        raise OutputError(f"{path} is damaged ({error}); {advice}") from None
