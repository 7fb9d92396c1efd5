"""Tiny ImageNet as it is distributed, with its own layout of validation images."""

import os
from pathlib import Path

import pytest
import torch

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data import open_source
from coopt_fl.data.labels import open_labels, unlabeled
from coopt_fl.data.sources.folders import FolderSource
from tests.unit.data.make import encode, pixels, write

WNIDS = ["n02", "n01"]
VAL = {"val_0.JPEG": "n02", "val_1.JPEG": "n01", "val_2.JPEG": "n02"}


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    for place, wnid in enumerate(WNIDS):
        for k in range(3):
            image = encode(pixels(10 * place + k, 64, 64), "JPEG")
            write(tmp_path / f"train/{wnid}/images/{wnid}_{k}.JPEG", image)
        write(tmp_path / f"train/{wnid}/{wnid}_boxes.txt", b"boxes")
    write(tmp_path / "train/.DS_Store", b"")
    for k, name in enumerate(VAL):
        write(tmp_path / f"val/images/{name}", encode(pixels(100 + k, 64, 64), "JPEG"))
    lines = "".join(f"{name}\t{wnid}\t0\t0\t9\t9\n" for name, wnid in VAL.items())
    write(tmp_path / "val/val_annotations.txt", lines.encode())
    write(tmp_path / "test/images/test_0.JPEG", b"unlabeled, unused")
    return DataConfig(source="tiny_imagenet", root=str(tmp_path))


def test_splits_and_labels(data: DataConfig) -> None:
    train, test = open_source(data), open_source(data, "test")
    assert isinstance(train, FolderSource) and isinstance(test, FolderSource)
    assert (len(train), len(test), train.image_size) == (6, 3, (64, 64))
    wanted = [["n01", "n02"].index(train.where(id)[:3]) for id in train.ids.tolist()]
    assert open_labels(data, "train").tolist() == wanted
    wanted = [["n01", "n02"].index(VAL[test.where(id)]) for id in test.ids.tolist()]
    assert open_labels(data, "test").tolist() == wanted
    assert torch.stack(test.read(test.ids)).shape == (3, 3, 64, 64)


def test_what_lies_beside_the_classes_is_none(data: DataConfig) -> None:
    wanted = open_labels(data, "train").tolist()
    for name in (b".git", b"__MACOSX", b"n00\xff"):
        (Path(data.root or "") / "train" / os.fsdecode(name)).mkdir()
    assert open_labels(data, "train").tolist() == wanted


def test_limited_labels_stay_aligned(data: DataConfig) -> None:
    whole = {split: open_labels(data, split).tolist() for split in ("train", "test")}
    data.limit = 2
    for split in ("train", "test"):
        assert open_labels(data, split).tolist() == whole[split][:2]


def test_what_the_annotations_lack_is_counted_and_left_out(data: DataConfig) -> None:
    """A stray image, one without a line, a class that train lacks; and no annotations at all."""
    path = Path(data.root or "") / "val/val_annotations.txt"
    write(path.parent / "images/stray.png", encode(pixels(7)))
    write(path.parent / "images/notes.md", b"words")
    test = open_source(data, "test")
    assert "1 left out: no image by its suffix or its first bytes (notes.md)" in test.notes[0]
    path.write_text("val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn77\t0\t0\t9\t9\n")
    labels = dict(zip(map(test.where, test.ids.tolist()), open_labels(data, "test"), strict=True))
    assert labels == {"val_0.JPEG": 1, "val_1.JPEG": -1, "val_2.JPEG": -1, "stray.png": -1}
    (said,) = unlabeled(data)
    assert said.startswith("3 of 4 test images have no label")
    path.unlink()
    with pytest.raises(DataError, match=r"val_annotations\.txt cannot be read.*extract"):
        open_labels(data, "test")


@pytest.mark.parametrize("root", [None, "nowhere"])
def test_missing_folder_says_what_to_fetch(root: str | None) -> None:
    with pytest.raises(DataError, match=r"must hold train/ and val/images/; download http"):
        open_source(DataConfig(source="tiny_imagenet", root=root))
