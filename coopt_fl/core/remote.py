"""Read and write objects under a URL: a path, ``file://``, ``s3://`` and the like.

The only module that uses fsspec. Credentials and endpoints come from the usual environment
variables of each storage (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``).
s3fs itself retries when the network or the server fails temporarily.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from coopt_fl.core.errors import CooptError, DataError, OutputError
from coopt_fl.core.extras import install_hint
from coopt_fl.core.files import atomic, make_folder

_SECRET = re.compile(r"(?<=://)[^/\s@]*@|\?[^\s\"']*")
"""User and password in a URL, and its query, which may hold a signature."""


TAGS = ("size", "mtime", "created", "ETag", "LastModified", "Last-Modified", "etag", "updated")
"""Fields of fsspec's ``info`` that change when an object is replaced."""


class MissingObject(DataError):  # noqa: N818 - a kind of DataError, named for what it is about
    """There is nothing at that URL."""


def join(url: str, *parts: str) -> str:
    """Return the URL of the object below ``url`` with the path components ``parts``."""
    return "/".join([url.rstrip("/"), *parts])


def shown(text: str) -> str:
    """Return a URL, or a message with URLs in it, without credentials."""
    return _SECRET.sub("", text)


def store(url: str, data: bytes) -> None:
    """Write an object atomically: readers of ``url`` find the former one or all of this one.

    Raises:
        OutputError: it cannot be written, or ``url`` is of a kind that cannot be used here.
    """
    with _opened(url, OutputError, "written") as (system, key):
        if "file" not in system.protocol:
            system.pipe_file(key, data)
            return
        make_folder(Path(key).parent)
        with atomic(Path(key)) as file:
            file.write(data)


def fetch(url: str, most_bytes: int) -> bytes:
    """Read an object of at most ``most_bytes``; a larger one is refused before it is read.

    Raises:
        MissingObject: there is none.
        DataError: it is too large or cannot be read, or ``url`` is of a kind that cannot be used.
    """
    with _opened(url, DataError, "read") as (system, key):
        found = _size(system, key)
        if found is None:
            raise MissingObject(f"there is no {shown(url)}; check the URL and that it was written")
        if found > most_bytes:
            raise DataError(
                f"{shown(url)} has {found} bytes where at most {most_bytes} are expected; "
                "write it again, and see who else can write there"
            )
        # S3 has no empty ranges. Bytes appended since the size was read are left out.
        return bytes(system.cat_file(key, start=0, end=found)) if found else b""


def part(url: str, start: int, stop: int) -> bytes:
    """Read the bytes from ``start`` up to, not including, ``stop``.

    Raises:
        DataError: they are not there or cannot be read.
    """
    with _opened(url, DataError, "read") as (system, key):
        found = bytes(system.cat_file(key, start=start, end=stop))
    if len(found) != stop - start:
        raise DataError(
            f"{shown(url)} gives {len(found)} bytes where {stop - start} were asked for; make sure "
            "that nobody changes it during a run"
        )
    return found


def in_parts(url: str) -> bool:
    """Tell whether an object, of two bytes or more, can be read from any offset.

    Raises:
        DataError: it is not there or cannot be read.
    """
    with _opened(url, DataError, "read") as (system, key):
        if not _is_web(system):
            return True
        with system.open(key, "rb") as file:
            try:
                file.seek(1)
                return len(file.read(1)) == 1
            except ValueError:  # a web server without ranges
                return False


@contextmanager
def stream(url: str) -> Iterator[IO[bytes]]:
    """Yield an object as a file that can only be read sequentially.

    Raises:
        DataError: it is not there or cannot be read.
    """
    with _opened(url, DataError, "read") as (system, key):
        file = system.open(key, "rb", **({"block_size": 0} if _is_web(system) else {}))
        with file:
            yield file


def version(url: str) -> list[str]:
    """Return the object's size, times and tags, some of which change when the object does.

    Raises:
        DataError: it is not there or cannot be read.
    """
    with _opened(url, DataError, "read") as (system, key):
        about = system.info(key)
        return [f"{tag}={about[tag]}" for tag in TAGS if about.get(tag) is not None]


def below(url: str) -> list[str]:
    """Return the paths of all objects below ``url``, without it, in order.

    Raises:
        DataError: they cannot be listed.
    """
    with _opened(url, DataError, "listed") as (system, key):
        start = key.rstrip("/") + "/"
        found = [path for path in system.find(key) if path.startswith(start)]
    return sorted(path.removeprefix(start) for path in found)


def size(url: str) -> int | None:
    """Return the object's size in bytes; None if there is no object.

    Raises:
        DataError: it cannot be looked up, or ``url`` is of a kind that cannot be used here.
    """
    with _opened(url, DataError, "read") as (system, key):
        return _size(system, key)


def remove(url: str) -> None:
    """Delete an object, if there is one.

    Raises:
        OutputError: it cannot be deleted, or ``url`` is of a kind that cannot be used here.
    """
    with _opened(url, OutputError, "deleted") as (system, key), suppress(FileNotFoundError):
        system.rm_file(key)


def _size(system: Any, key: str) -> int | None:
    try:
        about = system.info(key)
    except FileNotFoundError:
        return None
    return int(about["size"]) if about["type"] == "file" else None


def _is_web(system: Any) -> bool:
    """Tell whether a file system is a web server, which may not support range requests."""
    return "http" in system.protocol


@contextmanager
def _opened(url: str, kind: type[CooptError], done: str) -> Iterator[tuple[Any, str]]:
    """Yield fsspec's file system and the key of ``url`` in it; errors are raised as ``kind``."""
    try:
        yield _open(url, kind)
    except CooptError:
        raise
    except Exception as error:  # storage libraries raise nearly anything
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        local = "://" not in url or url.startswith("file://")
        advice = (
            "check that it exists, and its permissions"
            if local
            else "check the URL, the network, and the credentials in the environment"
        )
        raise kind(
            f"{shown(url)} cannot be {done} ({shown(reason.splitlines()[0])}); {advice}, then run "
            "the same command again"
        ) from error


def _open(url: str, kind: type[CooptError]) -> tuple[Any, str]:
    """Return file system and key. Listings are not cached: other processes write there, too."""
    import fsspec  # type: ignore[import-untyped]

    try:
        if "::" in url:
            raise ValueError("chained protocols are not supported")
        system, key = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise kind(
            f"{shown(url)} cannot be used here ({shown(str(error))}); give a path, a file:// or an "
            f"s3:// URL, and for the latter `{install_hint('s3')}`"
        ) from error
    return system, str(key)
