"""Objects under a URL: on the local disk, and on a real S3 server started by the test."""

import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest

from coopt_fl.core import remote
from coopt_fl.core.errors import DataError, OutputError
from tests.unit import s3


@pytest.fixture(params=["path", "file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place for objects."""
    if request.param == "s3":
        return str(request.getfixturevalue("bucket"))
    folder = str(tmp_path / "a folder")
    return folder if request.param == "path" else f"file://{folder}"


@pytest.fixture
def fresh_s3(bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket whose next use reads the environment again, with a single attempt."""
    from s3fs import S3FileSystem

    monkeypatch.setattr(S3FileSystem, "_cache", {})
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    return bucket


def test_what_is_stored_is_fetched_until_it_is_removed(place: str) -> None:
    url = remote.join(place, "blocks", "7.bin")
    assert remote.size(url) is None
    for content in (b"first", b"", b"the third is longer" * 1000, b"4"):
        remote.store(url, content)
        assert remote.size(url) == len(content)
        assert remote.fetch(url, len(content)) == content
    remote.remove(url)
    assert remote.size(url) is None
    remote.remove(url)


def test_parts_and_what_lies_below(place: str) -> None:
    url = remote.join(place, "deep", "x.bin")
    remote.store(url, bytes(range(100)))
    remote.store(remote.join(place, "y.bin"), b"y")
    assert remote.part(url, 7, 11) == bytes(range(7, 11))
    assert remote.in_parts(url)
    with remote.stream(url) as file:
        assert (file.read(3), file.read()) == (b"\0\1\2", bytes(range(3, 100)))
    assert remote.below(place) == ["deep/x.bin", "y.bin"]
    assert remote.below(f"{place}/deep/") == ["x.bin"]
    before = remote.version(url)
    assert remote.version(url) == before
    remote.store(url, bytes(101))
    assert remote.version(url) != before
    with pytest.raises(DataError, match=r"x\.bin gives 1 bytes where 5 were asked for"):
        remote.part(url, 100, 105)
    with pytest.raises(DataError, match=r"absent cannot be read"):
        remote.version(remote.join(place, "absent"))


def test_join_takes_a_slash_at_the_end() -> None:
    assert remote.join("s3://b/", "x", "y") == remote.join("s3://b", "x", "y") == "s3://b/x/y"
    assert remote.join("/", "x") == "/x"


def test_a_larger_object_is_refused(place: str) -> None:
    url = remote.join(place, "x")
    remote.store(url, b"12345")
    with pytest.raises(DataError, match=r"/x has 5 bytes where at most 4 are expected"):
        remote.fetch(url, 4)


def test_a_larger_object_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=f"{1 << 40} bytes"):
        remote.fetch(str(tmp_path / "huge"), 100)


@pytest.mark.parametrize("before", [0, 2])
def test_what_has_grown_since_is_not_read_further(
    before: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = remote.join(place, "x")
    remote.store(url, b"12345")
    monkeypatch.setattr(remote, "_size", lambda system, key: before)
    assert remote.fetch(url, 3) == b"12345"[:before]


def test_what_is_not_there_is_told_apart_from_what_cannot_be_read(place: str) -> None:
    remote.store(remote.join(place, "folder", "x"), b"1")
    for name in ("nothing", "folder"):
        with pytest.raises(remote.MissingObject, match=f"there is no .*/{name}; check"):
            remote.fetch(remote.join(place, name), 10)


def test_special_files_are_no_objects(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    for path in (str(tmp_path / "pipe"), "/dev/zero"):
        with pytest.raises(remote.MissingObject):
            remote.fetch(path, 10)


def test_other_processes_see_what_is_written_and_are_seen(bucket: str) -> None:
    """Other code that uses s3fs in this process may make it cache listings, and sizes with them."""
    mine, theirs = remote.join(bucket, "mine"), remote.join(bucket, "theirs")
    remote.store(mine, b"old")
    assert len(fsspec.filesystem("s3").ls(bucket)) == 1
    assert remote.size(mine) == 3 and remote.size(theirs) is None
    other = (
        "from coopt_fl.core import remote\n"
        f"assert remote.fetch({mine!r}, 9) == b'old'\n"
        f"remote.store({mine!r}, b'newer')\n"
        f"remote.store({theirs!r}, b'theirs')\n"
    )
    subprocess.run([sys.executable, "-c", other], check=True, timeout=60)
    assert remote.fetch(mine, 9) == b"newer"
    assert remote.fetch(theirs, 9) == b"theirs"


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "x")
    remote.store(url, b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"cannot write .*/x: No space left"):
            remote.store(url, b"after")
    assert remote.fetch(url, 10) == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("url", ["nothing://x/y", "simplecache::s3://x/y", "filecache::/tmp/y"])
def test_unknown_protocols_are_refused_both_ways(url: str) -> None:
    match = r"cannot be used here.*s3://.*pip install 's3fs>="
    with pytest.raises(DataError, match=match):
        remote.fetch(url, 10)
    with pytest.raises(OutputError, match=match):
        remote.store(url, b"")
    with pytest.raises(OutputError, match=match):
        remote.remove(url)


def test_without_s3fs_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.registry import _registry

    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(DataError, match=r"pip install 's3fs>="):
        remote.size("s3://x/y")


def test_failures_of_storage_are_typed_and_name_the_url(fresh_s3: str) -> None:
    with pytest.raises(OutputError, match=r"s3://nowhere-at-all/x cannot be written \(.*exist"):
        remote.store("s3://nowhere-at-all/x", b"")
    with pytest.raises(DataError, match=r"s3://b d/x cannot be read \(Parameter validation"):
        remote.size("s3://b d/x")


def test_no_credentials_of_the_environment_in_errors(
    fresh_s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OutputError, match=r"/x cannot be written \(.*check.*credentials") as caught:
        remote.store(remote.join(fresh_s3, "x"), b"")
    assert s3.KEY not in str(caught.value) and s3.SECRET not in str(caught.value)


def test_no_credentials_of_urls_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "://user:word@host/x?signature=abc"
    with pytest.raises(DataError, match=r"^foo://host/x cannot be used here") as caught:
        remote.fetch(f"foo{secret}", 1)

    def fail(*_: object, **__: object) -> None:
        raise OSError(f"403, url='https{secret}'")

    monkeypatch.setattr("fsspec.core.url_to_fs", fail)
    with pytest.raises(DataError, match=r"\(403, url='https://host/x'\); check") as told:
        remote.fetch(f"https{secret}", 1)
    said = f"{caught.value} {told.value}"
    assert "word" not in said and "abc" not in said


def test_a_server_that_fails_once_is_asked_again(
    fresh_s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore retries, on which coopt_fl.core.remote relies."""
    asked = []

    class Flaky(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(503 if len(asked) == 1 else 200)
            self.send_header("Content-Length", "5")
            self.send_header("Last-Modified", "Tue, 24 Nov 2026 00:00:00 GMT")
            self.send_header("ETag", '"0"')
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Flaky) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
        assert remote.size("s3://b/x") == 5
        server.shutdown()
    assert asked == ["/b/x", "/b/x"]


def test_the_library_is_imported_only_when_it_is_needed() -> None:
    check = "import sys, coopt_fl.core.remote; sys.exit('fsspec' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)
