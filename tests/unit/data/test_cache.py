"""The per-user cache: entries are made once, atomically, and evicted above the size limit."""

import os
import threading
import time
from pathlib import Path

import pytest

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.cache import cached
from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.data import open_source
from tests.unit.data import make

NOW = time.time()


def entry(path: Path, size: int = 100, hours_ago: float = 0) -> Path:
    """Make a file in the cache that was last used ``hours_ago``."""
    cached(path, path.read_bytes, lambda new: new.write_bytes(b"x" * size))
    aged(path, hours_ago)
    return path


def aged(path: Path, hours_ago: float) -> None:
    os.utime(path, (NOW - 3600 * hours_ago,) * 2)


def allow(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setenv("COOPT_CACHE_GB", str(size / 1e9))


def test_what_was_used_longest_ago_makes_room(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [
        entry(own_cache / "parquet" / name, hours_ago=age) for name, age in (("a", 3), ("b", 2))
    ]
    kept.append(entry(own_cache / "shards" / "sum" / "c", hours_ago=1))
    kept.append(entry(own_cache / "digits" / "d", hours_ago=9))  # small, and not limited
    allow(monkeypatch, 300)
    assert cached(kept[0], kept[0].read_bytes, lambda new: new.write_bytes(b"")) == b"x" * 100
    entry(own_cache / "targets" / "e")
    assert [path.exists() for path in kept] == [True, False, True, True]
    allow(monkeypatch, 100)
    entry(own_cache / "parquet" / "f")
    left = {path.name for path in own_cache.rglob("[!.]*") if path.is_file()}
    assert left == {"d", "f"}


def test_an_entry_larger_than_the_limit_is_kept_alone(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = entry(own_cache / "parquet" / "a", hours_ago=1)
    allow(monkeypatch, 50)
    assert entry(own_cache / "parquet" / "b").exists() and not first.exists()
    assert entry(own_cache / "parquet" / "b").exists()


def test_the_limit_is_20_gb_unless_set(own_cache: Path) -> None:
    for name, hours in (("a", 2), ("b", 1)):
        with entry(own_cache / "parquet" / name).open("r+b") as file:
            file.truncate(9_900_000_000)  # which takes no room on the disk
        aged(own_cache / "parquet" / name, hours)
    entry(own_cache / "parquet" / "c")
    assert (own_cache / "parquet" / "a").exists()
    entry(own_cache / "parquet" / "d", size=200_000_000)
    assert [(own_cache / "parquet" / name).exists() for name in "abcd"] == [False, True, True, True]


@pytest.mark.parametrize("wrong", ["much", "", "-1", "nan", "20GB"])
def test_nonsense_as_a_limit_is_refused(
    wrong: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COOPT_CACHE_GB", wrong)
    with pytest.raises(ConfigError, match=f"COOPT_CACHE_GB={wrong} is no number of gigabytes"):
        entry(own_cache / "parquet" / "a")


def test_a_folder_is_one_entry(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder has one time of last use, and is evicted as a whole."""

    def use(name: str) -> list[bytes]:
        folder = own_cache / "targets" / name

        def made(new: Path) -> None:
            for part in ("ids", "targets"):
                make.write(new / part, part.encode() * 10)

        return cached(folder, lambda: [(folder / p).read_bytes() for p in ("ids", "targets")], made)

    assert use("one") == [b"ids" * 10, b"targets" * 10]
    for file in (own_cache / "targets" / "one").iterdir():
        aged(file, 2)
    entry(own_cache / "parquet" / "a", hours_ago=1)
    use("one")
    allow(monkeypatch, 200)
    entry(own_cache / "parquet" / "b")
    assert use("one") == [b"ids" * 10, b"targets" * 10]
    assert not (own_cache / "parquet" / "a").exists()
    (own_cache / "targets" / "one" / "ids").unlink()  # as if evicted by halves
    assert use("one") == [b"ids" * 10, b"targets" * 10]
    for file in (own_cache / "targets" / "one").iterdir():
        aged(file, 2)
    allow(monkeypatch, 0)
    entry(own_cache / "parquet" / "c")
    assert not (own_cache / "targets" / "one").exists()


def test_nothing_half_made_is_seen_left_or_evicted(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own_cache / "parquet" / "a"

    def failing(new: Path) -> None:
        new.write_bytes(b"half")
        assert not path.exists()
        allow(monkeypatch, 0)
        entry(own_cache / "shards" / "sum" / "b")
        assert new.read_bytes() == b"half"
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"cannot keep .*No space left.*set COOPT_CACHE"):
        cached(path, path.read_bytes, failing)
    assert [file.name for file in path.parent.iterdir()] == [".lock"]


def test_one_makes_what_several_wait_for(own_cache: Path) -> None:
    made: list[Path] = []
    path = own_cache / "targets" / "a"

    def slow(new: Path) -> None:
        made.append(new)
        time.sleep(0.2)
        new.write_bytes(b"whole")

    threads = [
        threading.Thread(target=cached, args=(path, path.read_bytes, slow)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and path.read_bytes() == b"whole"


def test_open_images_outlive_their_copy(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After eviction, open files can still be read; the next one to open makes a new copy."""
    allow(monkeypatch, 0)
    data = []
    for name in ("one", "other"):
        make.parquet(
            tmp_path / name / "train.parquet", [make.encode(make.pixels(ord(k))) for k in name]
        )
        data.append(DataConfig(source="parquet", root=str(tmp_path / name)))
    first = open_source(data[0])
    before = [image.tolist() for image in first.read(first.ids)]
    (copy,) = own_cache.glob("parquet/*.images")
    other = open_source(data[1])
    other.read(other.ids)
    assert not copy.exists()
    assert [image.tolist() for image in first.read(first.ids)] == before
    again = open_source(data[0])
    assert [image.tolist() for image in again.read(again.ids)] == before
    assert list(own_cache.glob("parquet/*.images")) == [copy]
