"""The two answers for each audited sample, side by side in a memory-mapped file."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core.errors import OutputError
from coopt_fl.data.blocks import among
from coopt_fl.federation.plan import Ids, Plan
from coopt_fl.federation.state import RunState
from coopt_fl.policies.audit import Answer

Targets = NDArray[np.float16]

_AT_ONCE = 2**24


@dataclass(frozen=True)
class Side:
    """One of the two answers for each of A audited samples.

    Attributes:
        blocks: int64 (A,), the block with which the sample was asked for.
        targets: float16 (A, n), in the file.
        said: bool (A,), whether there is a target; else the sample was skipped.
    """

    blocks: Ids
    targets: Targets
    said: NDArray[np.bool]

    def of(self, index: int) -> Targets | None:
        """Return one target (n,), or None."""
        target: Targets = self.targets[index]
        return target if self.said[index] else None

    def fill(self, ids: Ids, rows: Callable[[int], tuple[Ids, Targets]]) -> None:
        """Fill in the answers for ``ids`` (A,); ``rows`` returns the ids and targets of a block."""
        order = np.argsort(self.blocks, kind="stable")
        starts = np.flatnonzero(np.diff(self.blocks[order], prepend=-1))
        for here in np.split(order, starts[1:]) if len(order) else []:
            known, targets = rows(int(self.blocks[here[0]]))
            there = among(ids[here], known)
            self.said[here] = there
            self.targets[here[there]] = targets[np.searchsorted(known, ids[here[there]])]


class Answers(Sequence[Answer]):
    """The answers for every audited sample, each made when it is accessed."""

    def __init__(self, owners: Sequence[str], ours: Side, theirs: Side) -> None:
        self.owners, self.ours, self.theirs = owners, ours, theirs

    def names(self) -> list[str]:
        """Return the names of all who were asked for any, in alphabetical order."""
        blocks = np.unique([self.ours.blocks, self.theirs.blocks]).tolist()
        return sorted({self.owners[block] for block in blocks})

    def __len__(self) -> int:
        return len(self.ours.blocks)

    def __getitem__(self, index: Any) -> Any:
        """Return one answer, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        block, unit = int(self.ours.blocks[index]), int(self.theirs.blocks[index])
        ours, theirs = self.ours.of(index), self.theirs.of(index)
        return Answer(self.owners[block], block, self.owners[unit], unit, ours, theirs)


@contextmanager
def answers(plan: Plan, audited: Ids, state: RunState, dim: int) -> Iterator[Answers]:
    """Yield the answers for every audited sample; their targets stay in a file, not in memory.

    Args:
        plan: the run's plan.
        audited: ids that are asked for with a second block, too, ascending.
        state: the state that has the audit rows.
        dim: width n of a target.
    """
    each = [plan.audit_ids(unit) for unit in range(len(plan.units))]
    ids = np.concatenate(each)
    units = np.repeat(np.arange(len(each)), [len(one) for one in each])
    homes = _homes(plan, audited)[np.searchsorted(audited, ids)]
    with _file(state.folder, (2, len(ids), dim)) as targets:
        ours, theirs = (
            Side(blocks, to_be, np.zeros(len(ids), bool))
            for blocks, to_be in zip((homes, units), targets, strict=True)
        )
        for side in (ours, theirs):
            side.fill(ids, state.audit_rows)
        yield Answers([plan.contributors[owner] for owner in plan.owners], ours, theirs)


@contextmanager
def _file(folder: Path, shape: tuple[int, ...]) -> Iterator[Targets]:
    """Yield a writable array of zeros in an unnamed temporary file.

    The zeros are written first, so that a full disk is an error; later it would be a fatal signal.
    """
    size = math.prod(shape) * np.dtype(np.float16).itemsize
    with ExitStack() as stack:
        try:
            file = stack.enter_context(TemporaryFile(dir=folder))
            for start in range(0, size, _AT_ONCE):
                file.write(bytes(min(_AT_ONCE, size - start)))
            file.flush()
            mapped = np.memmap(file, np.float16, shape=shape) if size else np.empty(shape)
        except OSError as error:
            raise OutputError(
                f"cannot write in {folder}: {error.strerror}; free some space, then run the same "
                "command again"
            ) from error
        yield np.asarray(mapped, np.float16)


def _homes(plan: Plan, audited: Ids) -> Ids:
    """Return the block that each audited sample belongs to, int64 (A',)."""
    homes = np.empty(len(audited), np.int64)
    for index, ids in enumerate(plan.blocks):
        homes[np.searchsorted(audited, ids[among(ids, audited)])] = index
    return homes
