"""List the regular files below a folder, each once, with notes on what is left out."""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coopt_fl.core.errors import DataError
from coopt_fl.core.once import once

NAMED = 3
"""Most files named in a note, for each reason."""

SPECIAL = "neither a file nor a folder"
BESIDE = "beside it"
"""The reason for files that are expected beside the images, and not worth a note."""

AGAIN = "a link to a folder that is listed already, or that holds this one"
FOLDER = "a folder"
LOCKED = "a folder that cannot be entered"
SAME = "a link to a file that is listed already"
OTHERS = "of another split, or a link there"

Wanted = Callable[[bytes], str]
"""Returns the reason why the file at a path is left out; "" if it is wanted."""


@dataclass
class Listing:
    """The result of listing a folder.

    Attributes:
        folder: the folder.
        paths: paths of the wanted files below it, in no order.
        left_out: paths of the others, by reason.
    """

    folder: Path
    paths: list[bytes] = field(default_factory=list)
    left_out: dict[str, list[bytes]] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that count and name the files left out."""
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
    """List the wanted files below ``folder``, except hidden ones.

    A link to a file counts as a file, even a dangling one: reading it raises the error. Folders and
    files are listed once however many links lead to them, by their own path if it is below
    ``folder``.

    Args:
        folder: the folder to list.
        wanted: called with the full path of each file.
        deep: whether to enter folders in it.
        skip: whether a folder that cannot be entered is left out.
        others: folders of other splits; files in them, and links to them, are left out.

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
    """Return the first ``size`` bytes of a file; none if it cannot be read."""
    try:
        with Path(os.fsdecode(path)).open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


@dataclass
class _Walk:
    """A walk through folders, each identified by device and inode."""

    found: Listing
    wanted: Wanted
    deep: bool
    skip: bool
    others: list[str]
    seen: set[tuple[int, int]] = field(default_factory=set)
    links: list[bytes] = field(default_factory=list)
    linked: list[bytes] = field(default_factory=list)

    def all(self) -> None:
        """Walk through real folders, then through linked ones, then take the linked files."""
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
        """Take or leave out the links to files; one whose target is listed is left out."""
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
        if not self.deep and not self.wanted(self._full(path)):  # has the name of a wanted file
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
    """Return the device and inode of a file; None for a dangling link."""
    try:
        return _key(path)
    except OSError:
        return None


def _mode(entry: "os.DirEntry[bytes]") -> int | None:
    """Return the mode of a link's target; None if it cannot be looked up."""
    try:
        return entry.stat().st_mode
    except OSError:
        return None


def named(paths: Sequence[bytes]) -> str:
    """Return the first paths as text for messages."""
    shown = [path.decode("utf-8", "backslashreplace") for path in paths[:NAMED]]
    return ", ".join([*shown, *["..."] * (len(paths) > NAMED)])
