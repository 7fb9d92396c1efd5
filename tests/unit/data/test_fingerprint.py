"""A fingerprint depends on every byte of the data, and on nothing else."""

import os
import shutil
import time
from pathlib import Path

import pytest

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data import fingerprint, open_source
from tests.unit.data.make import encode, flip_byte, parquet, pixels, tree


@pytest.fixture(params=["imagefolder", "parquet"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / request.param
    if request.param == "imagefolder":
        tree(root, ["train/a/0.png", "train/b/1.png"])
    else:
        parquet(root / "train.parquet", [encode(pixels(k)) for k in range(2)])
    return root


def sum_of(root: Path) -> str:
    kind = root.name.split("-")[0]
    return open_source(DataConfig(source=kind, root=str(root))).fingerprint


def a_file(root: Path) -> Path:
    return next(path for path in sorted(root.rglob("*")) if path.is_file())


def test_moving_copying_and_touching_change_nothing(root: Path) -> None:
    before = sum_of(root)
    elsewhere = root.with_name(f"{root.name}-copy")
    shutil.copytree(root, elsewhere)
    assert sum_of(elsewhere) == before
    os.utime(a_file(root), (1, 1))
    assert sum_of(root) == before
    moved = root.rename(root.with_name(f"{root.name}-moved"))
    assert sum_of(moved) == before


@pytest.mark.parametrize("settled", [-1.0, 2.0], ids=["remembered", "not remembered"])
def test_one_byte_changes_it_even_where_size_and_mtime_stay(
    root: Path, settled: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED_S", settled)
    before, file = sum_of(root), a_file(root)
    status = file.stat()
    time.sleep(0.05)  # more than one tick of the file system's clock
    flip_byte(file, status.st_size // 2)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size
    assert sum_of(root) != before


def test_renaming_a_file_changes_it(root: Path) -> None:
    before, file = sum_of(root), a_file(root)
    file.rename(file.with_name(f"x-{file.name}"))
    assert sum_of(root) != before


def test_settled_files_are_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED_S", -1.0)
    before, read = sum_of(root), []
    monkeypatch.setattr(fingerprint, "_digest", lambda *args: read.append(args))
    assert sum_of(root) == before
    assert not read


def test_fresh_files_are_not_remembered(
    root: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED_S", 3600.0)
    sum_of(root)
    assert not (own_cache / "fingerprints").exists()


def test_cache_that_cannot_be_written_does_no_harm(
    root: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED_S", -1.0)
    before = sum_of(root)
    shutil.rmtree(own_cache)
    own_cache.write_text("not a folder")
    assert sum_of(root) == before


def test_damaged_memory_is_not_believed(
    root: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED_S", -1.0)
    before = sum_of(root)
    (kept,) = (own_cache / "fingerprints").iterdir()
    kept.write_text("")
    assert sum_of(root) == before


def test_vanished_file_is_named(tmp_path: Path) -> None:
    tree(tmp_path, ["train/a/0.png"])
    source = open_source(DataConfig(source="imagefolder", root=str(tmp_path)))
    (tmp_path / "train/a/0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png cannot be read \(No such file"):
        _ = source.fingerprint


@pytest.mark.parametrize("damage", [b"\xff" * 64, b"z" * 64, b""])
def test_a_damaged_memory_is_forgotten(
    damage: bytes, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED_S", -1.0)
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path / "cache"))
    before = sum_of(root)
    kept = list((tmp_path / "cache/fingerprints").iterdir())
    for file in kept:
        file.write_bytes(damage)
    assert kept and sum_of(root) == before
