"""The files below a folder: each of them regular and met once; what is left out is named."""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coopt_fl.core.errors import DataError
from coopt_fl.core.once import once

NAMED = 3
"""Files that a note names of each kind that is left out."""

SPECIAL = "neither a file nor a folder"
BESIDE = "beside it"
"""Of files that belong there, so that nothing is said of them."""

AGAIN = "a link to a folder that is listed already, or that holds this one"
FOLDER = "a folder"
LOCKED = "a folder that cannot be entered"
SAME = "a link to a file that is listed already"
OTHERS = "of another split, or a link there"

Wanted = Callable[[bytes], str]
"""Why a file is left out, given its path; "" if it is not."""


@dataclass
class Listing:
    """What is below a folder.

    Attributes:
        folder: the folder.
        paths: of the files below it that are wanted, in no order.
        left_out: of the others, by the reason.
    """

    folder: Path
    paths: list[bytes] = field(default_factory=list)
    left_out: dict[str, list[bytes]] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that count and name what was left out."""
        return tuple(
            f"below {self.folder}, {len(paths):,} left out: {reason} ({named(sorted(paths))})"
            for reason, paths in sorted(self.left_out.items())
        )


def listed(
    folder: Path,
    wanted: Wanted,
    *,
    deep: bool = True,
    skip: bool = False,
    others: tuple[Path, ...] = (),
) -> Listing:
    """List the files below ``folder`` that are wanted, but for hidden ones.

    A link to a file counts as a file, also where it leads nowhere: who reads it finds out. A folder
    is listed once, however many links lead to it, by its own path if it has one; likewise a file.

    Args:
        folder: where to look.
        wanted: told the full path of each file.
        deep: whether to look into folders.
        skip: whether a folder that cannot be entered is left out.
        others: folders of other splits: what is there, or a link there, is left out.

    Raises:
        DataError: a folder cannot be entered.
    """

    def walked() -> Listing:
        walk = _Walk(Listing(folder), wanted, deep, skip, [os.path.realpath(one) for one in others])
        try:
            walk.all()
        except OSError as error:
            where = error.filename
            shown = os.fsdecode(where) if isinstance(where, bytes) else where or folder
            raise DataError(f"{shown} cannot be listed: {error.strerror}") from error
        return walk.found

    return once((folder, wanted, deep, skip, others), walked)


def head(path: bytes, size: int) -> bytes:
    """Return the first bytes of a file; none where it cannot be read."""
    try:
        with Path(os.fsdecode(path)).open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


@dataclass
class _Walk:
    """A walk through folders, which are known by device and inode."""

    found: Listing
    wanted: Wanted
    deep: bool
    skip: bool
    others: list[str]
    seen: set[tuple[int, int]] = field(default_factory=set)
    links: list[bytes] = field(default_factory=list)
    linked: list[bytes] = field(default_factory=list)

    def all(self) -> None:
        """Walk through real folders, then through those that links lead to, then look at files."""
        self.seen = {_key(parent) for parent in Path(os.path.realpath(self.found.folder)).parents}
        self._folders(b"")
        while self.links:
            links, self.links = sorted(self.links), []
            for link in links:
                self._folders(link)
        self._linked_files()

    def _folders(self, first: bytes) -> None:
        waiting = [first]
        while waiting:
            below = waiting.pop()
            top = self._full(below)
            try:
                with os.scandir(top) as entries:
                    if self._of_others(below):
                        self._leave_out(OTHERS, below)
                        continue
                    if (key := _key(top)) in self.seen:
                        self._leave_out(AGAIN, below)
                        continue
                    self.seen.add(key)
                    waiting += self._files(below, entries)
            except PermissionError:
                if not self.skip or not below:
                    raise
                self._leave_out(LOCKED, below)

    def _files(self, below: bytes, entries: "os._ScandirIterator[bytes]") -> list[bytes]:
        """Sort the entries of a folder, and return the real folders among them."""
        folders = []
        for entry in entries:
            if entry.name.startswith(b"."):
                continue
            path = below + b"/" + entry.name if below else entry.name
            linked = entry.is_symlink()
            if linked and (mode := _mode(entry)) is not None and not stat.S_ISREG(mode):
                if not stat.S_ISDIR(mode):
                    self._leave_out(SPECIAL, path)
                elif self._may_enter(path):
                    self.links.append(path)
            elif linked:
                self.linked.append(path)
            elif entry.is_file(follow_symlinks=False):
                self._file(path)
            elif not entry.is_dir(follow_symlinks=False):
                self._leave_out(SPECIAL, path)
            elif self._may_enter(path):
                folders.append(path)
        return folders

    def _linked_files(self) -> None:
        """Sort the links to files: one beside what it leads to would give that twice."""
        real = {_known_key(self._full(path)) for path in self.found.paths} if self.linked else set()
        for path in sorted(self.linked):
            if self._of_others(path):
                self._leave_out(OTHERS, path)
            elif (key := _known_key(self._full(path))) is not None and key in real:
                self._leave_out(SAME, path)
            else:
                self._file(path)

    def _of_others(self, path: bytes) -> bool:
        """Tell whether a path leads into the folder of another split."""
        real = os.path.realpath(os.fsdecode(self._full(path))) if self.others else ""
        return any(f"{real}/".startswith(f"{other}/") for other in self.others)

    def _may_enter(self, path: bytes) -> bool:
        if not self.deep and not self.wanted(self._full(path)):  # named as the files are
            self._leave_out(FOLDER, path)
        return self.deep

    def _file(self, path: bytes) -> None:
        reason = self.wanted(self._full(path))
        if reason:
            if reason != BESIDE:
                self._leave_out(reason, path)
        else:
            self.found.paths.append(path)

    def _full(self, path: bytes) -> bytes:
        top = os.fsencode(self.found.folder)
        return top + b"/" + path if path else top

    def _leave_out(self, reason: str, path: bytes) -> None:
        self.found.left_out.setdefault(reason, []).append(path)


def _key(path: Path | bytes) -> tuple[int, int]:
    found = Path(os.fsdecode(path)).stat()
    return found.st_dev, found.st_ino


def _known_key(path: bytes) -> tuple[int, int] | None:
    """Return what tells a file from others; None of a link that leads nowhere."""
    try:
        return _key(path)
    except OSError:
        return None


def _mode(entry: "os.DirEntry[bytes]") -> int | None:
    """Return what a link leads to; None: nothing that can be looked at."""
    try:
        return entry.stat().st_mode
    except OSError:
        return None


def named(paths: Sequence[bytes]) -> str:
    """Return the first paths, for people."""
    shown = [path.decode("utf-8", "backslashreplace") for path in paths[:NAMED]]
    return ", ".join([*shown, *["..."] * (len(paths) > NAMED)])
