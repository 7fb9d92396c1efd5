"""The copy of encoded images: built once, whole or not at all."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from coopt_fl.core.errors import OutputError
from coopt_fl.data.sources.parquet import flat_copy

IMAGES = [b"first", b"", b"third image", b"x" * 100_000]


def contents(folder: Path, images: list[bytes] = IMAGES) -> list[bytes]:
    copy = flat_copy(folder, lambda: images)
    return [copy[row] for row in range(len(copy))]


def refuse() -> Iterator[bytes]:
    raise AssertionError("the copy was made again")


def test_built_once(tmp_path: Path) -> None:
    assert contents(tmp_path / "copy") == IMAGES
    assert flat_copy(tmp_path / "copy", refuse)[2] == IMAGES[2]


@pytest.mark.parametrize("damage", ["images gone", "images cut", "offsets empty", "offsets gone"])
def test_damaged_copy_is_made_again(damage: str, tmp_path: Path) -> None:
    contents(tmp_path)
    file, how = damage.split()
    path = tmp_path / {"images": "images.bin", "offsets": "offsets.npy"}[file]
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 3 if how == "cut" else 0])
    assert contents(tmp_path) == IMAGES


def test_interrupted_copy_is_made_again(tmp_path: Path) -> None:
    def interrupted() -> Iterator[bytes]:
        yield IMAGES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flat_copy(tmp_path, interrupted)
    assert contents(tmp_path) == IMAGES


def test_full_disk_names_the_remedy_and_frees_it(tmp_path: Path) -> None:
    def full() -> Iterator[bytes]:
        yield b"x" * 1000
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match=r"No space left.*set COOPT_CACHE"):
        flat_copy(tmp_path, full)
    assert not (tmp_path / "images.bin").exists()


def test_cache_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="set COOPT_CACHE"):
        contents(tmp_path / "file" / "copy")
