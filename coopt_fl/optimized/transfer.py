"""Push an optimized dataset to a URL or pull it from one; it is verified at both ends.

The URL gets the dataset folder unchanged, the student, and ``manifest.json`` with the sha256 of
every file. The manifest is written last: without it there is nothing to pull.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from coopt_fl.core import remote, typed
from coopt_fl.core.errors import DataError, OutputError, VerificationError
from coopt_fl.core.files import atomic, file_sha256, locked, make_folder
from coopt_fl.core.typed import Sha256, within
from coopt_fl.optimized.block import dataset_digest
from coopt_fl.optimized.card import dataset_card, require_license
from coopt_fl.optimized.croissant import CROISSANT, renewed
from coopt_fl.optimized.provenance import Provenance, parse_provenance
from coopt_fl.optimized.verify import verify

FORMAT = 1
MANIFEST, PROVENANCE, CARD, STUDENT = (
    "manifest.json",
    "provenance.json",
    "README.md",
    "student/checkpoint.pt",
)
LOCK = ".pull.lock"

PUSHED_AGAIN = f"delete the {MANIFEST} there, and have the dataset pushed again"

MOST_BYTES = 64 << 20
"""Largest manifest: some hundred thousand files."""

MOST_FILE_BYTES = 8 << 30
"""Largest file: it is read into memory as a whole."""

Tell = Callable[[int, int], None]
"""Called with the numbers of finished files and of all files."""

Content = Callable[[], bytes]

NAMES = re.compile(
    rf"data/part-\d+\.parquet|student/checkpoint\.pt|provenance\.json|README\.md|{CROISSANT}"
)
"""The only paths that are accepted in a manifest, which is untrusted."""


@dataclass(frozen=True)
class SentFile:
    """Size and sha256 by which one file is verified."""

    bytes: Annotated[int, within(0, MOST_FILE_BYTES)]
    sha256: Sha256


@dataclass(frozen=True)
class Manifest:
    """What was pushed: the dataset's digest, and the files by their path below the URL."""

    digest: Sha256
    files: dict[str, SentFile]

    def encode(self) -> bytes:
        """Return the content of ``manifest.json``."""
        value = {"format": FORMAT, **asdict(self), "complete": True}
        return json.dumps(value, indent=1).encode() + b"\n"


@dataclass(frozen=True)
class Transferred:
    """The dataset that was pushed or pulled, and how many files were written for it."""

    manifest: Manifest
    provenance: Provenance
    written: int


def push(folder: Path, url: str, extra: Mapping[str, bytes], tell: Tell) -> Transferred:
    """Write the dataset in ``folder`` below ``url``, and its manifest last.

    Files that an earlier manifest there lists and that have the right size are not written again.

    Args:
        folder: a dataset folder.
        url: an absolute path, ``file://``, or ``s3://`` and the like.
        extra: other files, such as the student, by their path below the URL.
        tell: see :data:`Tell`.

    Raises:
        VerificationError: the dataset is damaged, or its card does not name the licence that
            follows from its provenance; nothing is written.
        OutputError: ``url`` cannot be written, or holds another dataset.
    """
    provenance = _verified(folder)
    before = _earlier_manifest(url, provenance.digest)
    contents = dict(_contents(folder, provenance, extra))
    files: dict[str, SentFile] = {}
    written = 0
    for path, read in contents.items():
        content, place = read(), remote.join(url, path)
        files[path] = SentFile(len(content), hashlib.sha256(content).hexdigest())
        known = before is not None and before.files.get(path) == files[path]
        if not known or remote.size(place) != len(content):
            remote.store(place, content)
            written += 1
        tell(len(files), len(contents))
    manifest = Manifest(provenance.digest, files)
    if manifest != before:
        remote.store(remote.join(url, MANIFEST), manifest.encode())
    return Transferred(manifest, provenance, written)


def pull(url: str, out: Path, tell: Tell) -> Transferred:
    """Fetch what was pushed to ``url`` into ``out/dataset`` and ``out/student``; resume if stopped.

    Nothing is written before manifest, provenance and card are found to agree. An intact dataset
    is not replaced, nor is any student.

    Args:
        url: as for :func:`push`.
        out: an output directory; intact files in it are kept.
        tell: see :data:`Tell`.

    Raises:
        DataError: there is no finished dataset, or it cannot be read.
        VerificationError: a file differs from the manifest, or the data from their digest.
        OutputError: ``out`` holds another dataset, or cannot be written.
    """
    manifest, dataset = read_manifest(url), out / "dataset"
    with locked(out / LOCK):
        described = {
            path: _fetched(url, path, manifest)
            for path in (PROVENANCE, CARD, CROISSANT)
            if path in manifest.files
        }
        provenance = _checked_provenance(url, manifest, described)
        is_here = _is_here(dataset, provenance)
        written = 0
        for done, path in enumerate(_provenance_last(manifest.files), 1):
            place = out / path if path == STUDENT else dataset / path
            if not (place.exists() if path == STUDENT else is_here):
                written += _put(place, url, path, manifest, described)
            tell(done, len(manifest.files))
        try:
            return Transferred(manifest, provenance if is_here else _verified(dataset), written)
        except VerificationError:
            (dataset / PROVENANCE).unlink(missing_ok=True)  # else it passes for a dataset
            raise


def read_manifest(url: str) -> Manifest:
    """Return the manifest at ``url``.

    Raises:
        MissingObject: there is no manifest.
        DataError: it is malformed or cannot be read.
    """
    place = remote.join(url, MANIFEST)
    try:
        content = remote.fetch(place, MOST_BYTES)
    except remote.MissingObject as error:
        raise remote.MissingObject(
            f"there is no finished dataset at {remote.shown(url)} (no {MANIFEST}, which is written "
            "last); check the URL, or have its owner run `coopt push` to its end"
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


def _verified(folder: Path) -> Provenance:
    """Verify a dataset and return its provenance; raise VerificationError if it is damaged."""
    provenance, problems = verify(folder)
    if problems:
        raise VerificationError(
            f"{folder} is damaged ({problems[0]}): `coopt inspect` tells all that is wrong; run or "
            "pull it again"
        )
    return provenance


def _earlier_manifest(url: str, digest: str) -> Manifest | None:
    """Return the manifest of an earlier push of the same dataset, or None."""
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
    """Yield each file's path below the URL and a function that reads it; the provenance is last."""
    card = _card(folder, provenance)  # before anything is sent
    for file in provenance.files:
        yield file.path, (folder / file.path).read_bytes
    for path, content in extra.items():
        yield path, partial(bytes, content)
    yield CARD, partial(bytes, card)
    yield CROISSANT, partial(renewed, provenance, _content_of(folder / CROISSANT))
    yield PROVENANCE, (folder / PROVENANCE).read_bytes


def _card(folder: Path, provenance: Provenance) -> bytes:
    """Return the card after checking its licence; a deleted one is written anew."""
    content = _content_of(folder / CARD) or dataset_card(provenance).encode()
    require_license(content, provenance, str(folder / CARD))
    return content


def _content_of(path: Path) -> bytes:
    """Return the content of a file, empty if there is none."""
    return path.read_bytes() if path.is_file() else b""


def _provenance_last(files: Mapping[str, SentFile]) -> list[str]:
    return sorted(files, key=lambda path: (path == PROVENANCE, path))


def _checked_provenance(url: str, manifest: Manifest, described: dict[str, bytes]) -> Provenance:
    """Check that manifest, provenance and card at ``url`` agree; return the provenance.

    ``croissant.json`` in ``described`` is replaced by one made from the provenance.

    Raises:
        VerificationError: they do not agree.
    """
    place = remote.shown(url)
    provenance = parse_provenance(described[PROVENANCE], remote.join(place, PROVENANCE))
    if not manifest.digest == provenance.digest == dataset_digest(provenance.block_digests):
        raise VerificationError(
            f"the digests in the {MANIFEST} and {PROVENANCE} at {place} do not match; "
            f"{PUSHED_AGAIN}"
        )
    sent = {path: file.sha256 for path, file in manifest.files.items() if path.startswith("data/")}
    if sent != {file.path: file.sha256 for file in provenance.files}:
        raise VerificationError(
            f"the {MANIFEST} at {place} lists other data than the {PROVENANCE}; {PUSHED_AGAIN}"
        )
    if CARD in described:
        require_license(described[CARD], provenance, remote.join(place, CARD))
    if CROISSANT in described:
        described[CROISSANT] = renewed(provenance, described[CROISSANT])
    return provenance


def _is_here(folder: Path, wanted: Provenance) -> bool:
    """Whether the dataset ``wanted`` is in ``folder`` and intact.

    Raises:
        OutputError: another dataset is there, or one that the files of ``wanted`` cannot repair.
    """
    if (folder / PROVENANCE).exists():
        try:
            ours, problems = verify(folder)
        except VerificationError as error:
            raise OutputError(
                f"{error}; or delete {folder / PROVENANCE}, and pull again"
            ) from error
        if ours.digest != wanted.digest:
            raise OutputError(
                f"{folder.parent} holds another dataset; delete it, or give `coopt pull` another "
                "--out"
            )
        if not problems:
            return True
        if ours.files != wanted.files:
            raise OutputError(
                f"{folder} is damaged ({problems[0]}), and what was pushed is in other files: "
                "delete it, and pull again"
            )
    listed = {file.path for file in wanted.files}
    for path in sorted((folder / "data").glob("*.parquet")):
        if f"data/{path.name}" not in listed:  # readers would read it as data
            raise OutputError(f"{path} is no part of the dataset: remove it, and pull again")
    return False


def _put(
    place: Path, url: str, path: str, manifest: Manifest, described: Mapping[str, bytes]
) -> bool:
    """Write a file unless it is there and intact; return whether it was written."""
    wanted = described.get(path)
    digest = manifest.files[path].sha256 if wanted is None else hashlib.sha256(wanted).hexdigest()
    if place.is_file() and file_sha256(place) == digest:
        return False
    content = _fetched(url, path, manifest) if wanted is None else wanted
    make_folder(place.parent)
    with atomic(place) as out:
        out.write(content)
    return True


def _fetched(url: str, path: str, manifest: Manifest) -> bytes:
    """Fetch a file and verify it by the manifest."""
    place, file = remote.join(url, path), manifest.files[path]
    content = remote.fetch(place, file.bytes)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise VerificationError(
            f"{remote.shown(place)} is not the file that its manifest lists (its sha256 differs): "
            "if it is just being pushed, wait; else delete it, and have it pushed again"
        )
    return content
