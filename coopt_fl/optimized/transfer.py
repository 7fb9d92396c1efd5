"""An optimized dataset on its way: pushed to a URL, pulled from one, verified at both ends.

At the URL lies the dataset folder as it is, with the student, and ``manifest.json``, which is
written last and has the sum of every file: without it there is nothing to pull.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from coopt_fl.core import remote, typed
from coopt_fl.core.errors import DataError, OutputError, VerificationError
from coopt_fl.core.files import atomic, file_sha256, locked, make_folder
from coopt_fl.core.typed import Sha256, within
from coopt_fl.optimized.croissant import CROISSANT, croissant
from coopt_fl.optimized.provenance import Provenance, read_provenance
from coopt_fl.optimized.verify import verify

FORMAT = 1
MANIFEST, PROVENANCE, CARD, STUDENT = (
    "manifest.json",
    "provenance.json",
    "README.md",
    "student/checkpoint.pt",
)
LOCK = ".pull.lock"

MOST_BYTES = 64 << 20
"""Of a manifest: some hundred thousand files."""

MOST_FILE_BYTES = 8 << 30
"""Of a file, for it is in memory as a whole."""

Tell = Callable[[int, int], None]
"""Called with the number of files that are done, and of all."""

Content = Callable[[], bytes]

NAMES = re.compile(
    rf"data/part-\d+\.parquet|student/checkpoint\.pt|provenance\.json|README\.md|{CROISSANT}"
)
"""The files that there may be: a manifest from elsewhere decides nothing else."""


@dataclass(frozen=True)
class SentFile:
    """How one file is verified."""

    bytes: Annotated[int, within(0, MOST_FILE_BYTES)]
    sha256: Sha256


@dataclass(frozen=True)
class Manifest:
    """What was pushed: the dataset's digest, and its files by their path below the URL."""

    digest: Sha256
    files: dict[str, SentFile]

    def encode(self) -> bytes:
        """Return the file's content."""
        value = {"format": FORMAT, **asdict(self), "complete": True}
        return json.dumps(value, indent=1).encode() + b"\n"


@dataclass(frozen=True)
class Transferred:
    """What is there now, and how many of its files were not before."""

    manifest: Manifest
    provenance: Provenance
    written: int


def push(folder: Path, url: str, extra: Mapping[str, bytes], tell: Tell) -> Transferred:
    """Write the dataset in ``folder`` below ``url``, and its manifest last.

    Files that a manifest there already tells of are not written again.

    Args:
        folder: a dataset folder.
        url: an absolute path, ``file://``, or ``s3://`` and the like.
        extra: other files, such as the student, by their path below the URL.
        tell: see :data:`Tell`.

    Raises:
        VerificationError: the dataset is damaged; nothing is written.
        OutputError: ``url`` cannot be written, or holds another dataset.
    """
    provenance = _sound(folder)
    before = _before(url, provenance.digest)
    contents = dict(_contents(folder, provenance, extra))
    files: dict[str, SentFile] = {}
    written = 0
    for path, read in contents.items():
        content = read()
        files[path] = SentFile(len(content), hashlib.sha256(content).hexdigest())
        if before is None or before.files.get(path) != files[path]:
            remote.store(remote.join(url, path), content)
            written += 1
        tell(len(files), len(contents))
    manifest = Manifest(provenance.digest, files)
    if manifest != before:
        remote.store(remote.join(url, MANIFEST), manifest.encode())
    return Transferred(manifest, provenance, written)


def pull(url: str, out: Path, tell: Tell) -> Transferred:
    """Fetch what was pushed to ``url`` into ``out/dataset`` and ``out/student``; resumes.

    Args:
        url: as for :func:`push`.
        out: an output directory; files in it that are as they should be are kept.
        tell: see :data:`Tell`.

    Raises:
        DataError: there is no finished dataset, or it cannot be read.
        VerificationError: what came is not what the manifest or the dataset's digest says.
        OutputError: ``out`` holds another dataset, or cannot be written.
    """
    manifest = read_manifest(url)
    with locked(out / LOCK):
        _require_same(out, manifest.digest)
        written = 0
        for done, (path, file) in enumerate(_provenance_last(manifest.files), 1):
            place = out / path if path == STUDENT else out / "dataset" / path
            written += _fetched(remote.join(url, path), file, place)
            tell(done, len(manifest.files))
        try:
            provenance = _sound(out / "dataset")
            if provenance.digest != manifest.digest:
                raise VerificationError(f"{remote.shown(url)} tells of another digest than it has")
        except VerificationError:
            (out / "dataset" / PROVENANCE).unlink(missing_ok=True)  # it is not to be taken for one
            raise
    return Transferred(manifest, provenance, written)


def read_manifest(url: str) -> Manifest:
    """Return the manifest at ``url``.

    Raises:
        MissingObject: there is none.
        DataError: it is none, or cannot be read.
    """
    place = remote.join(url, MANIFEST)
    try:
        content = remote.fetch(place, MOST_BYTES)
    except remote.MissingObject as error:
        raise remote.MissingObject(
            f"there is no finished dataset at {remote.shown(url)} (no {MANIFEST}, which is written "
            "last); check the URL, and let who pushes it run `coopt push` to its end"
        ) from error
    try:
        return _parse(content)
    except ValueError as error:
        raise DataError(
            f"{remote.shown(place)} is not a manifest of a pushed dataset ({error}); delete it, "
            "and run `coopt push` again"
        ) from error


def _parse(content: bytes) -> Manifest:
    tree = typed.parse(dict[str, Any], content)
    if (tree.pop("format", None), tree.pop("complete", None)) != (FORMAT, True):
        raise ValueError(f"it is not of format {FORMAT}, or not complete")
    read = typed.decode(Manifest, tree)
    if PROVENANCE not in read.files or not all(map(NAMES.fullmatch, read.files)):
        raise ValueError("its files are not those of an optimized dataset")
    return read


def _sound(folder: Path) -> Provenance:
    """Return the provenance of a dataset, every sum of which is right."""
    provenance, problems = verify(folder)
    if problems:
        raise VerificationError(
            f"{folder} is damaged ({problems[0]}): `coopt inspect` tells all that is wrong; run or "
            "pull it again"
        )
    return provenance


def _before(url: str, digest: str) -> Manifest | None:
    """Return the manifest of an earlier push of the same dataset; None where there is none."""
    try:
        before = read_manifest(url)
    except remote.MissingObject:
        return None
    if before.digest != digest:
        raise OutputError(
            f"{remote.shown(url)} holds another dataset (digest {before.digest[:12]}, here "
            f"{digest[:12]}); give another URL, or delete what is there"
        )
    return before


def _contents(
    folder: Path, provenance: Provenance, extra: Mapping[str, bytes]
) -> Iterator[tuple[str, Content]]:
    """Yield each file's path below the URL with how it is read, the provenance last."""
    for file in provenance.files:
        yield file.path, (folder / file.path).read_bytes
    for path, content in extra.items():
        yield path, partial(bytes, content)
    if (folder / CARD).is_file():
        yield CARD, (folder / CARD).read_bytes
    yield CROISSANT, lambda: _croissant(folder, provenance)
    yield PROVENANCE, (folder / PROVENANCE).read_bytes


def _croissant(folder: Path, provenance: Provenance) -> bytes:
    """Return the description, which a dataset of before does not have."""
    if (folder / CROISSANT).is_file():
        return (folder / CROISSANT).read_bytes()
    return json.dumps(croissant(provenance, datetime.now(UTC).date()), indent=1).encode()


def _provenance_last(files: Mapping[str, SentFile]) -> list[tuple[str, SentFile]]:
    return sorted(files.items(), key=lambda one: (one[0] == PROVENANCE, one[0]))


def _require_same(out: Path, digest: str) -> None:
    """Raise OutputError where ``out`` holds a finished dataset of another digest."""
    if not (out / "dataset" / PROVENANCE).exists():
        return
    if read_provenance(out / "dataset").digest != digest:
        raise OutputError(
            f"{out} holds another dataset; delete it, or give `coopt pull` another --out"
        )


def _fetched(url: str, file: SentFile, place: Path) -> bool:
    """Fetch a file unless it is there as it should be; tell whether it was fetched."""
    if place.is_file() and file_sha256(place) == file.sha256:
        return False
    content = remote.fetch(url, file.bytes)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise VerificationError(
            f"{remote.shown(url)} is not the file that its manifest tells of (its sha256 differs): "
            "if it is just being pushed, wait; else let it be pushed again"
        )
    make_folder(place.parent)
    with atomic(place) as out:
        out.write(content)
    return True
