"""An optimized dataset on its way: pushed to a URL, pulled from one, verified at both ends.

At the URL lies the dataset folder as it is, with the student, and ``manifest.json``, which is
written last and has the sum of every file: without it there is nothing to pull.
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

PUSHED_AGAIN = f"delete the {MANIFEST} there, and let it be pushed again"

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

    Files that a manifest there already tells of, and that have their size, are not written again.

    Args:
        folder: a dataset folder.
        url: an absolute path, ``file://``, or ``s3://`` and the like.
        extra: other files, such as the student, by their path below the URL.
        tell: see :data:`Tell`.

    Raises:
        VerificationError: the dataset is damaged, or its card names another licence than follows
            from its provenance; nothing is written.
        OutputError: ``url`` cannot be written, or holds another dataset.
    """
    provenance = _sound(folder)
    before = _before(url, provenance.digest)
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
    """Fetch what was pushed to ``url`` into ``out/dataset`` and ``out/student``; resumes.

    Nothing is written before manifest, provenance and card are known to agree. Where the dataset
    is there and sound, none of its files is replaced; nor ever is a student.

    Args:
        url: as for :func:`push`.
        out: an output directory; files in it that are as they should be are kept.
        tell: see :data:`Tell`.

    Raises:
        DataError: there is no finished dataset, or it cannot be read.
        VerificationError: what came is not what the manifest or the dataset's digest says.
        OutputError: ``out`` holds another dataset, or cannot be written.
    """
    manifest, dataset = read_manifest(url), out / "dataset"
    with locked(out / LOCK):
        described = {
            path: _fetched(url, path, manifest)
            for path in (PROVENANCE, CARD, CROISSANT)
            if path in manifest.files
        }
        provenance = _agreeing(url, manifest, described)
        is_here = _is_here(dataset, provenance)
        written = 0
        for done, path in enumerate(_provenance_last(manifest.files), 1):
            place = out / path if path == STUDENT else dataset / path
            if not (place.exists() if path == STUDENT else is_here):
                written += _put(place, url, path, manifest, described)
            tell(done, len(manifest.files))
        try:
            return Transferred(manifest, provenance if is_here else _sound(dataset), written)
        except VerificationError:
            (dataset / PROVENANCE).unlink(missing_ok=True)  # it is not to be taken for one
            raise


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
    card = _card(folder, provenance)  # before anything is sent
    for file in provenance.files:
        yield file.path, (folder / file.path).read_bytes
    for path, content in extra.items():
        yield path, partial(bytes, content)
    yield CARD, partial(bytes, card)
    yield CROISSANT, partial(renewed, provenance, _old(folder / CROISSANT))
    yield PROVENANCE, (folder / PROVENANCE).read_bytes


def _card(folder: Path, provenance: Provenance) -> bytes:
    """Return the card, which somebody may have edited or deleted."""
    content = _old(folder / CARD) or dataset_card(provenance).encode()
    require_license(content, provenance, str(folder / CARD))
    return content


def _old(path: Path) -> bytes:
    """Return what is in a file; nothing where there is none."""
    return path.read_bytes() if path.is_file() else b""


def _provenance_last(files: Mapping[str, SentFile]) -> list[str]:
    return sorted(files, key=lambda path: (path == PROVENANCE, path))


def _agreeing(url: str, manifest: Manifest, described: dict[str, bytes]) -> Provenance:
    """Return the provenance, which the manifest and the card at ``url`` must agree with.

    Croissant in ``described`` is replaced by what follows from the provenance.

    Raises:
        VerificationError: they do not.
    """
    place = remote.shown(url)
    provenance = parse_provenance(described[PROVENANCE], remote.join(place, PROVENANCE))
    if not manifest.digest == provenance.digest == dataset_digest(provenance.block_digests):
        raise VerificationError(f"{place} tells of another digest than it has; {PUSHED_AGAIN}")
    sent = {path: file.sha256 for path, file in manifest.files.items() if path.startswith("data/")}
    if sent != {file.path: file.sha256 for file in provenance.files}:
        raise VerificationError(
            f"the {MANIFEST} at {place} tells of other data than the {PROVENANCE}; {PUSHED_AGAIN}"
        )
    if CARD in described:
        require_license(described[CARD], provenance, remote.join(place, CARD))
    if CROISSANT in described:
        described[CROISSANT] = renewed(provenance, described[CROISSANT])
    return provenance


def _is_here(folder: Path, wanted: Provenance) -> bool:
    """Tell whether the dataset is in ``folder``, every sum of which is right.

    Raises:
        OutputError: what is there is another, or cannot be mended by the files of ``wanted``.
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
        if f"data/{path.name}" not in listed:  # readers would take it for data
            raise OutputError(f"{path} is no part of the dataset: remove it, and pull again")
    return False


def _put(
    place: Path, url: str, path: str, manifest: Manifest, described: Mapping[str, bytes]
) -> bool:
    """Write a file unless it is there as it should be; tell whether it was written."""
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
    """Fetch a file, and require the sum that the manifest tells."""
    place, file = remote.join(url, path), manifest.files[path]
    content = remote.fetch(place, file.bytes)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise VerificationError(
            f"{remote.shown(place)} is not the file that its manifest tells of (its sha256 "
            "differs): if it is just being pushed, wait; else delete it, and let it be pushed again"
        )
    return content
