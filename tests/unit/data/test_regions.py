"""Regions of images that look alike."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data import from_arrays, open_source
from coopt_fl.data.regions import REGIONS, regions
from tests.unit.data.make import encode, parquet, pixels

DATA = DataConfig()
COLOURS = np.array([[200, 20, 20], [20, 200, 20], [20, 20, 200]])


def coloured(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy images (N, 12, 12, 3) of three colours, and the colour of each."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, 3, count)
    noise = rng.integers(-15, 16, (count, 12, 12, 3))
    return (COLOURS[which][:, None, None] + noise).clip(0, 255).astype(np.uint8), which


def test_no_region_mixes_what_looks_different() -> None:
    images, which = coloured(300)
    source = from_arrays(images)
    shared = np.arange(0, 300, 5)
    found = regions(source, shared, 0, DATA)
    assert found.shape == (300,) and len(np.unique(found)) == REGIONS
    for region in np.unique(found):
        assert len(np.unique(which[found == region])) == 1
    seen = list[int]()
    assert np.array_equal(regions(source, shared, 0, DATA, seen.append), found)
    assert seen == []  # it was kept
    other = regions(source, shared, 1, DATA, seen.append)
    assert seen[-1] == 300 and other.shape == found.shape


def test_two_kinds_of_images_make_two_regions() -> None:
    images = np.zeros((40, 9, 9, 3), np.uint8)
    images[1::2] = 255
    found = regions(from_arrays(images), np.arange(10), 0, DATA)
    assert {*found[::2].tolist()} | {*found[1::2].tolist()} == {0, 1}
    assert [len(np.unique(found[start::2])) for start in (0, 1)] == [1, 1]


def test_what_cannot_be_read_stops_or_is_put_anywhere(tmp_path: Path) -> None:
    files = [encode(pixels(k)) for k in range(30)]
    files[7] = files[7][:40]
    parquet(tmp_path / "train.parquet", files)
    data = DataConfig("parquet", str(tmp_path))
    source = open_source(data)
    with pytest.raises(DataError, match="row 7"):
        regions(source, np.arange(6), 0, data)
    found = regions(source, np.arange(6, 12), 0, replace(data, on_error="skip"))
    assert found[7] == 0 and len(np.unique(found)) > 1
    with pytest.raises(DataError, match="none of the 1 images of the shared set"):
        regions(source, np.array([7]), 0, replace(data, on_error="skip"))
