"""From blocks to batches: order, block borders, and corrupt images."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data import Preprocess, batches, open_source
from coopt_fl.data.blocks import make_blocks
from coopt_fl.data.source import CorruptImage, Source
from tests.unit.data import make

batches_module = import_module("coopt_fl.data.batches")  # its function hides it


@settings(max_examples=60)
@given(rows=st.integers(1, 40), block_rows=st.integers(1, 15), batch_size=st.integers(1, 20))
def test_batches_cut_each_block_and_never_cross_one(
    rows: int, block_rows: int, batch_size: int
) -> None:
    source = open_source(DataConfig(source="synthetic", limit=rows))
    blocks = make_blocks(source.ids, block_rows, seed=0)
    read = list(batches(source, blocks, batch_size, workers=0))
    assert np.array_equal(np.concatenate([b.ids for b in read]), np.concatenate(blocks))
    sizes = [len(b.ids) for b in read]
    assert sizes == [
        min(batch_size, len(k) - s) for k in blocks for s in range(0, len(k), batch_size)
    ]
    for batch in read:
        assert isinstance(batch.images, torch.Tensor) and batch.images.dtype == torch.uint8
        assert torch.equal(batch.images, torch.stack(source.read(batch.ids)))
        assert batch.skipped == ()


def test_no_blocks_and_empty_blocks_give_no_batches() -> None:
    source = open_source(DataConfig(source="synthetic", limit=5))
    assert list(batches(source, [], 4)) == []
    assert list(batches(source, [source.ids[:0]], 4)) == []


@pytest.fixture
def damaged(tmp_path: Path) -> Source:
    """Rows 0 to 8, of which 2, 6, 7 and 8 hold no image; row 4 is larger than the others."""
    rows = [make.encode(make.pixels(k, 6 + (k == 4))) for k in range(9)]
    rows[2], rows[6], rows[7], rows[8] = b"torn", b"", b"GIF89a", rows[8][:20]
    make.parquet(tmp_path / "train.parquet", rows)
    return open_source(DataConfig(source="parquet", root=str(tmp_path)))


def test_corrupt_images_are_skipped_and_named(damaged: Source) -> None:
    read = list(batches(damaged, [damaged.ids], 3, on_error="skip", workers=0))
    assert [batch.ids.tolist() for batch in read] == [[0, 1], [3, 4, 5], []]
    assert [batch.skipped for batch in read] == [(2,), (), (6, 7, 8)]
    assert read[0].images.shape == (2, 3, 6, 5)
    assert [tuple(image.shape) for image in read[1].images] == [(3, 6, 5), (3, 7, 5), (3, 6, 5)]
    assert len(read[2].images) == 0
    for batch in read[:2]:
        for id, image in zip(batch.ids.tolist(), batch.images, strict=True):
            assert torch.equal(image, make.as_tensor(make.pixels(id, 6 + (id == 4))))


def test_corrupt_image_ends_the_walk_by_default(damaged: Source) -> None:
    walk = batches(damaged, [damaged.ids[:2], damaged.ids[2:]], 8, workers=0)
    assert next(walk).ids.tolist() == [0, 1]
    with pytest.raises(CorruptImage, match=r"train\.parquet row 2 \(id 2\) is corrupt"):
        next(walk)


def test_missing_file_of_a_folder_is_a_corrupt_image(tmp_path: Path) -> None:
    make.tree(tmp_path / "train", ["a/0.png", "a/1.png"])
    source = open_source(DataConfig(source="imagefolder", root=str(tmp_path)))
    (tmp_path / "train" / source.where(1)).unlink()
    (batch,) = batches(source, [source.ids], 2, on_error="skip", workers=0)
    assert (batch.ids.tolist(), batch.skipped) == ([0], (1,))
    with pytest.raises(CorruptImage, match=f"{source.where(1)} .*No such file"):
        list(batches(source, [source.ids], 2, workers=0))


@pytest.mark.parametrize("workers", [0, 1])
def test_images_can_be_fitted_where_they_are_read(damaged: Source, workers: int) -> None:
    """All images of a batch then have one size, and the same bits as if fitted afterwards."""
    preprocess = Preprocess(4, 5, "bicubic", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    asked = (damaged, [damaged.ids], 3, "skip", workers)
    fitted, whole = batches(*asked, fit=preprocess.square), batches(*asked)
    for squares, images in zip(fitted, whole, strict=True):
        assert np.array_equal(squares.ids, images.ids)
        if len(squares.ids):
            assert isinstance(squares.images, torch.Tensor)
            assert squares.images.shape[1:] == (3, 4, 4) and squares.images.dtype == torch.uint8
        assert torch.equal(preprocess.fitted(squares.images), preprocess(images.images))


def test_foreign_id_is_an_error_even_where_corrupt_images_are_skipped(damaged: Source) -> None:
    with pytest.raises(DataError, match="id 99 is not in source"):
        list(batches(damaged, [np.array([0, 2, 99])], 3, on_error="skip", workers=0))


@pytest.mark.parametrize(
    ("cores", "busy", "free", "shared", "expected"),
    [
        (8, 1, 9999, 9999, 7),
        (8, 0, 9999, 9999, 8),
        (1, 1, 9999, 9999, 0),
        (8, 1, 3200, 9999, 4),
        (8, 1, 9999, 1200, 3),
        (8, 1, 100, 9999, 0),
    ],
)
def test_there_are_as_many_workers_as_there_is_room_for(
    cores: int, busy: int, free: int, shared: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker takes 200 MiB plus two shared batches of 100 MiB; half of the memory stays free."""
    monkeypatch.setattr(batches_module, "cores", lambda: cores)
    monkeypatch.setattr(batches_module, "free_memory", lambda: free << 20)
    monkeypatch.setattr(batches_module, "free_shared_memory", lambda: shared << 20)
    assert batches_module.most_workers(100 << 20, busy) == expected


def test_image_files_are_read_and_fitted_one_by_one(damaged: Source) -> None:
    """Only one large photograph at a time is in memory at full size."""
    said = list[str]()
    read, fit = damaged.read, Preprocess(4, 5, "bicubic", (0.5,) * 3, (0.5,) * 3).square

    def reading(ids: np.ndarray) -> list[torch.Tensor]:
        said.append(f"read {ids.tolist()}")
        return read(ids)

    def fitting(image: torch.Tensor) -> torch.Tensor:
        said.append("fitted")
        return fit(image)

    damaged.read = reading  # type: ignore[method-assign]
    list(batches(damaged, [np.array([4, 0])], 2, workers=0, fit=fitting))
    assert said == ["read [4]", "fitted", "read [0]", "fitted"]


@pytest.mark.parametrize(("worth_s", "expected"), [(0.0, True), (1e9, False)])
def test_workers_are_started_only_where_they_pay_off(
    worth_s: float, expected: bool, damaged: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fake(read: Callable, plan: list, workers: int) -> list:
        asked.append(workers)
        return [read(ids) for ids in plan]

    monkeypatch.setattr(batches_module, "WORKERS_PAY_OFF_S", worth_s)
    monkeypatch.setattr(batches_module, "read_in_workers", fake)
    read = list(batches(damaged, [damaged.ids], 2, on_error="skip"))
    assert [id for batch in read for id in batch.ids.tolist()] == [0, 1, 3, 4, 5]
    assert bool(asked) is expected
    decoded = open_source(DataConfig(source="synthetic", limit=50))
    asked.clear()
    assert len(list(batches(decoded, [decoded.ids], 5))) == 10
    assert not asked
