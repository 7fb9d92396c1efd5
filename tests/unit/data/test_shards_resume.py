"""Publishing shards again: after an interruption, when complete, and over other files."""

from pathlib import Path

import pytest

from coopt_fl.config.schema import DataConfig
from coopt_fl.core import remote
from coopt_fl.core.errors import DataError, OutputError
from coopt_fl.data import Source, open_source
from coopt_fl.data.shards import open_shards, publish
from coopt_fl.data.shards.publishing import Published
from tests.unit.data.make import layout


@pytest.fixture
def digits() -> Source:
    return open_source(DataConfig(source="digits", limit=300))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "shards")


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that records the names of written files."""
    names: list[str] = []
    store = remote.store

    def counted(url: str, data: bytes) -> None:
        names.append(url.rpartition("shards/")[2])
        store(url, data)

    monkeypatch.setattr(remote, "store", counted)
    return names


def write(url: str, of: Source, seed: int = 0) -> Published:
    return publish(url, of, layout(of, seed), "raise", lambda done, total: None)


def interrupted(url: str, of: Source, at: str, seed: int = 0) -> None:
    """Publish until writing file ``at`` fails, which leaves half of it behind."""
    store = remote.store

    def failing(place: str, data: bytes) -> None:
        if place.endswith(at):
            store(place, data[: len(data) // 2])
            raise OutputError("the network is gone")
        store(place, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "store", failing)
        with pytest.raises(OutputError, match="the network is gone"):
            write(url, of, seed)


def content(folder: str | Path) -> dict[str, bytes]:
    found = (file for file in Path(folder).rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


@pytest.mark.parametrize("at", ["0000000.parquet", "0000003.parquet", "shared.parquet", ".json"])
def test_an_interrupted_publication_resumes(
    at: str, url: str, digits: Source, stored: list[str], tmp_path: Path
) -> None:
    interrupted(url, digits, at)
    with pytest.raises(DataError, match=r"no finished shards|is not a manifest"):
        open_shards(url)
    if at == ".json":
        (Path(url) / "manifest.json").unlink()
    recorded = {"0000000.parquet": 0, "0000003.parquet": 3, "shared.parquet": 5, ".json": 6}[at]
    stored.clear()
    again = write(url, digits)
    assert again.written == 6 - recorded
    assert len(stored) == 6 - recorded + 1 and stored[-1] == "manifest.json"
    assert again.manifest_sha256 == write(str(tmp_path / "at once"), digits).manifest_sha256
    assert content(url) == content(tmp_path / "at once")


def test_finished_shards_are_left_alone(url: str, digits: Source, stored: list[str]) -> None:
    first = write(url, digits)
    assert (first.written, len(stored)) == (6, 7)
    again = write(url, digits)
    assert (again.written, len(stored)) == (0, 7)
    assert (again.manifest, again.manifest_sha256) == (first.manifest, first.manifest_sha256)


def test_finished_shards_are_known_without_this_hosts_record(
    url: str, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(url, digits)
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path / "other cache"))
    assert write(url, digits).written == 0


def test_lost_and_torn_files_are_written_again(url: str, digits: Source) -> None:
    first, whole = write(url, digits), content(url)
    (Path(url) / "blocks" / "0000002.parquet").unlink()
    (Path(url) / "shared.parquet").write_bytes(whole["shared.parquet"][:-1])
    again = write(url, digits)
    assert again.written == 2
    assert content(url) == whole
    assert again.manifest_sha256 == first.manifest_sha256


def test_progress_is_told(url: str, digits: Source) -> None:
    told: list[tuple[int, int]] = []
    publish(url, digits, layout(digits), "raise", lambda *given: told.append(given))
    assert told == [(done, 6) for done in range(1, 7)]


def test_other_shards_are_not_overwritten(url: str, digits: Source) -> None:
    write(url, digits)
    before = content(url)
    for other, seed in ((digits, 1), (open_source(DataConfig(source="digits", limit=200)), 0)):
        with pytest.raises(OutputError, match=r"holds shards of another source, seed.*--out"):
            write(url, other, seed)
    assert content(url) == before


def test_something_else_called_manifest_is_not_overwritten(url: str, digits: Source) -> None:
    remote.store(f"{url}/manifest.json", b"{}")
    with pytest.raises(OutputError, match=r"is no manifest of shards .*; remove it, or give"):
        write(url, digits)
    assert content(url) == {"manifest.json": b"{}"}


def test_a_record_ends_where_other_shards_are_written(
    url: str, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes may be equal, so an older record must not be taken for the new files."""
    monkeypatch.setattr("coopt_fl.data.shards.publishing._png", lambda image: b"0123456789")
    interrupted(url, digits, "0000003.parquet", seed=0)
    interrupted(url, digits, "0000003.parquet", seed=1)
    assert write(url, digits, seed=0).written == 6


def test_a_torn_record_costs_only_its_last_line(url: str, digits: Source, own_cache: Path) -> None:
    interrupted(url, digits, "0000003.parquet")
    (record,) = (file for file in own_cache.glob("publishing/*/*") if file.name != ".lock")
    record.write_bytes(record.read_bytes()[:-5])
    assert write(url, digits).written == 6 - 2


def test_without_a_cache_it_says_so(
    url: str, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert digits.fingerprint
    (tmp_path / "file").touch()
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"cannot keep a record in .*; set COOPT_CACHE"):
        write(url, digits)
