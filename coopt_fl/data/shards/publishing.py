"""Write shards; files that an interrupted call finished are not written again."""

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
"""Files in progress at once, each held in memory: one is read while another is sent."""

Files = dict[str, ShardFile]
"""Files by path below the URL."""


@dataclass(frozen=True)
class Published:
    """Finished shards, and the number of files that this call wrote."""

    manifest: Manifest
    manifest_sha256: str
    written: int


def publish(
    url: str, source: Source, layout: Layout, on_error: str, tell: Callable[[int, int], None]
) -> Published:
    """Write the files of ``layout`` and then their manifest below ``url``.

    A file is not written again if the manifest, or a record on this host, lists it as written. An
    image is published as the bytes of its file, or, if it has none, as a PNG of its pixels.

    Args:
        url: destination: an absolute path, ``file://``, or ``s3://`` and the like.
        source: the images; read from several threads.
        layout: the ids in each file.
        on_error: "skip" publishes an unreadable file as an empty one, which readers skip; "raise"
            stops.
        tell: called with the number of files done, and of all files.

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
    """Yield the file that records which files of the shards ``what`` were written at ``url``.

    Only one process on this host at a time may publish at a URL.

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
    """Return the manifest at ``url`` if these shards are finished; None if there is no manifest.

    Raises:
        OutputError: there are other shards, or it cannot be read.
    """
    place = remote.join(url, "manifest.json")
    try:
        found = parse(remote.fetch(place, MOST_BYTES))
    except remote.MissingObject:
        return None
    except DataError as error:  # this is the first access to the destination
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
            "audit.fraction, assignment or shared.size; give another --out"
        )
    return found


def _all(
    url: str, source: Source, layout: Layout, on_error: str, known: Files
) -> Iterator[tuple[str, ShardFile]]:
    """Yield all files; a file that is not ``known``, or has another size, is written first."""

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
        yield from pool.map(one, layout.files())  # map cancels the rest when one fails


def _images(source: Source, ids: NDArray[np.int64], on_error: str) -> Iterator[bytes]:
    """Yield the bytes of each image's file; b"" if it is unreadable and ``on_error`` is "skip"."""
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
    """Return an image, uint8 (3, H, W), as a PNG file, which is lossless."""
    out = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(out, "PNG")
    return out.getvalue()
