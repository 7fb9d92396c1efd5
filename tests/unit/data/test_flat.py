"""The copy of encoded images is built once and atomically."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from coopt_fl.core.errors import OutputError
from coopt_fl.data.flat import flat_copy

IMAGES = [b"first", b"", b"third image", b"x" * 100_000]


def contents(path: Path, images: list[bytes] = IMAGES) -> list[bytes]:
    copy = flat_copy(path, len(images), images)
    return [copy[row] for row in range(len(images))]


def refuse() -> Iterator[bytes]:
    raise AssertionError("the copy was made again")
    yield b""


def test_built_once(tmp_path: Path) -> None:
    assert contents(tmp_path / "copy") == IMAGES
    assert flat_copy(tmp_path / "copy", len(IMAGES), refuse())[2] == IMAGES[2]


@pytest.mark.parametrize("left", [None, 0, 3, 8, -1, -8, -16])
def test_damaged_copy_is_made_again(left: int | None, tmp_path: Path) -> None:
    """The copy is missing (None), or truncated."""
    path = tmp_path / "copy"
    contents(path)
    whole = path.read_bytes()
    if left is None:
        path.unlink()
    else:
        path.write_bytes(whole[:left])
    assert contents(path) == IMAGES
    assert path.read_bytes() == whole


@pytest.mark.parametrize("rows", [3, 5])
def test_copy_of_another_number_of_rows_is_made_again(rows: int, tmp_path: Path) -> None:
    contents(tmp_path / "copy")
    other = [b"%d" % row for row in range(rows)]
    assert contents(tmp_path / "copy", other) == other


def test_interrupted_copy_is_made_again(tmp_path: Path) -> None:
    def interrupted() -> Iterator[bytes]:
        yield IMAGES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flat_copy(tmp_path / "copy", len(IMAGES), interrupted())
    assert contents(tmp_path / "copy") == IMAGES


def test_cache_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="set COOPT_CACHE"):
        contents(tmp_path / "file" / "copy")
