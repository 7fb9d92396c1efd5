"""Writing shards; what an interrupted run wrote is not written again."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from coopt_fl.core import remote
from coopt_fl.core.cache import cache_dir, exclusive
from coopt_fl.core.errors import DataError, OutputError
from coopt_fl.data.shards.manifest import (
    MOST_BYTES,
    MOST_FILE_BYTES,
    Layout,
    Manifest,
    ShardFile,
    parse,
)
from coopt_fl.data.shards.unit import ROWS_AT_ONCE, encode_unit
from coopt_fl.data.source import CorruptImage, EncodedSource, Source

AT_ONCE = 2
"""Files in progress at once, all in memory: one is read while another is sent."""

Files = dict[str, ShardFile]
"""Files by path below the URL."""


@dataclass(frozen=True)
class Published:
    """Finished shards, and how many of their files this run wrote."""

    manifest: Manifest
    manifest_sha256: str
    written: int


def publish(
    url: str, source: Source, layout: Layout, on_error: str, tell: Callable[[int, int], None]
) -> Published:
    """Write the files of ``layout`` and then their manifest below ``url``.

    A file is not written again if the manifest, or else a record on this host, says that it was
    written. An image is published as the bytes of its file, or else as a PNG of its pixels.

    Args:
        url: where the shards go; an absolute path, ``file://``, or ``s3://`` and the like.
        source: of the images; it is read from several threads.
        layout: which ids go where.
        on_error: "skip" publishes a file that cannot be read as empty, to be skipped again;
            "raise" stops.
        tell: called with the number of files that are done, and of all files.

    Raises:
        DataError: an image cannot be read, or a block's images are too many bytes.
        OutputError: ``url`` cannot be written, or holds other shards.
    """
    ids_sha256 = layout.digest()
    with _record(url, f"{source.name} {source.fingerprint} {ids_sha256}") as record:
        before = _finished(url, source, ids_sha256)
        known = Files(before.files if before else {})
        for line in record.read_bytes().splitlines() if record.exists() else []:
            with suppress(ValueError, TypeError):  # a line may have been torn
                path, entry = json.loads(line)
                known[path] = ShardFile(**entry)
        files, written = Files(), 0
        for path, file in _all(url, source, layout, on_error, known):
            files[path] = file
            if file is not known.get(path):
                written += 1
                with record.open("ab") as out:
                    out.write(b"\n" + json.dumps([path, asdict(file)]).encode())
            tell(len(files), len(layout.units) + 1)
        manifest = Manifest(
            name=source.name,
            fingerprint=source.fingerprint,
            rows=len(source),
            image_size=source.image_size,
            block_rows=layout.block_rows,
            audit_fraction=layout.audit_fraction,
            ids_sha256=ids_sha256,
            files=files,
        )
        content = manifest.encode()
        if manifest != before:
            remote.store(remote.join(url, "manifest.json"), content)
        record.unlink(missing_ok=True)
    return Published(manifest, hashlib.sha256(content).hexdigest(), written)


@contextmanager
def _record(url: str, what: str) -> Iterator[Path]:
    """Yield the file that records what was written of ``what`` at ``url``.

    Only one process at a time may publish at a URL.

    Raises:
        OutputError: the cache cannot be written.
    """
    folder = cache_dir() / "publishing" / hashlib.sha256(url.encode()).hexdigest()
    record = folder / hashlib.sha256(what.encode()).hexdigest()
    try:
        with exclusive(folder):
            for other in folder.glob("[0-9a-f]*"):
                if other != record:  # its files may be overwritten from now on
                    other.unlink()
            yield record
    except OSError as error:
        raise OutputError(
            f"cannot keep a record in {folder} ({error.strerror}); "
            "set COOPT_CACHE to a folder that can be written"
        ) from error


def _finished(url: str, source: Source, ids_sha256: str) -> Manifest | None:
    """Return the manifest of the same shards, where they are finished.

    Raises:
        OutputError: others are there.
    """
    place = remote.join(url, "manifest.json")
    try:
        found = parse(remote.fetch(place, MOST_BYTES))
    except remote.MissingObject:
        return None
    except DataError as error:  # the first time that anything is asked of the place
        raise OutputError(str(error)) from error
    except ValueError as error:
        raise OutputError(
            f"{remote.shown(place)} is there, but is no manifest of shards ({error}); "
            "remove it, or give another --out"
        ) from error
    there = (found.name, found.fingerprint, found.ids_sha256)
    if there != (source.name, source.fingerprint, ids_sha256):
        raise OutputError(
            f"{remote.shown(url)} holds shards of another source, seed, optimize.block_rows, "
            "audit.fraction, assignment.partition or shared.size; give another --out"
        )
    return found


def _all(
    url: str, source: Source, layout: Layout, on_error: str, known: Files
) -> Iterator[tuple[str, ShardFile]]:
    """Yield all files; those that are not ``known``, or have not their size, are written."""

    def one(item: tuple[str, NDArray[np.int64]]) -> tuple[str, ShardFile]:
        path, ids = item
        place, file = remote.join(url, path), known.get(path)
        if file is not None and remote.size(place) == file.bytes:
            return path, file
        content = encode_unit(ids, _images(source, ids, on_error))
        if len(content) > MOST_FILE_BYTES:
            raise DataError(
                f"{len(ids)} images make {remote.shown(place)} {len(content)} bytes long, at most "
                f"{MOST_FILE_BYTES} can be; choose a smaller optimize.block_rows or shared.size"
            )
        remote.store(place, content)
        return path, ShardFile(hashlib.sha256(content).hexdigest(), len(content), len(ids))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(one, layout.files())  # which cancels the rest when one fails


def _images(source: Source, ids: NDArray[np.int64], on_error: str) -> Iterator[bytes]:
    """Yield the file of each image; an empty one where it cannot be read and is to be skipped."""
    if not isinstance(source, EncodedSource):
        for start in range(0, len(ids), ROWS_AT_ONCE):
            yield from map(_png, source.read(ids[start : start + ROWS_AT_ONCE]))
        return
    for id in ids.tolist():
        try:
            yield source.file_bytes(id)
        except CorruptImage:
            if on_error != "skip":
                raise
            yield b""


def _png(image: Tensor) -> bytes:
    """Return uint8 (3, H, W) as a file from which the same pixels are decoded."""
    out = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(out, "PNG")
    return out.getvalue()
