"""Image files in folders: ``train/CLASS/*`` and ``val`` or ``test``."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data import open_source
from coopt_fl.data.labels import open_labels
from coopt_fl.data.source import NoSplitError
from coopt_fl.data.sources.folders import FolderSource
from tests.unit.data.make import as_tensor, encode, pixels, tree, write

NAMES = [f"{name}/{k}.png" for name in ("dog", "cat", "eel") for k in range(6)]


def config(root: Path, **more: object) -> DataConfig:
    return DataConfig(source="imagefolder", root=str(root), **more)


def names(source: object) -> list[str]:
    assert isinstance(source, FolderSource)
    return [source.where(id) for id in source.ids.tolist()]


def test_every_image_once_with_its_pixels(tmp_path: Path) -> None:
    planted = tree(tmp_path / "train", NAMES)
    source = open_source(config(tmp_path))
    assert sorted(names(source)) == sorted(NAMES)
    for name, image in zip(names(source), source.read(source.ids), strict=True):
        assert torch.equal(image, as_tensor(planted[name]))


def test_ids_are_the_same_on_every_host(tmp_path: Path) -> None:
    """The order is frozen: ids are stored in datasets, so it must never change."""
    tree(tmp_path / "train", NAMES[:6])
    assert names(open_source(config(tmp_path))) == FROZEN


FROZEN = [f"dog/{k}.png" for k in (5, 3, 0, 1, 2, 4)]


def test_labels_are_places_among_the_sorted_classes_of_train(tmp_path: Path) -> None:
    tree(tmp_path / "train", NAMES)
    tree(tmp_path / "val", ["eel/x.png", "cat/y.png"])
    for split, limit in (("train", None), ("train", 4), ("test", None)):
        data = config(tmp_path, limit=limit)
        found = names(open_source(data, split))
        expected = [["cat", "dog", "eel"].index(name.split("/")[0]) for name in found]
        labels = open_labels(data, split)
        assert labels is not None and labels.dtype == np.int64
        assert labels.tolist() == expected


def test_limit_is_a_mix_of_classes(tmp_path: Path) -> None:
    for k in range(200):
        write(tmp_path / f"train/{'ab'[k >= 100]}/{k}.png", b"never decoded")
    labels = open_labels(config(tmp_path, limit=40), "train")
    assert labels is not None and 8 <= labels.sum() <= 32


@pytest.mark.parametrize("folder", ["val", "validation", "test"])
def test_test_split_by_its_usual_names(folder: str, tmp_path: Path) -> None:
    tree(tmp_path, ["train/a/0.png", f"{folder}/a/1.png", f"{folder}/a/2.png"])
    assert len(open_source(config(tmp_path), "test")) == 2


@pytest.mark.parametrize("names", [["cat/0.png", "dog/1.png"], ["0.png", "1.png"]])
def test_a_folder_that_names_no_split_is_all_to_train_on(names: list[str], tmp_path: Path) -> None:
    tree(tmp_path / "whole", names)
    tree(tmp_path / "split" / "train", names)
    whole, split = (open_source(config(tmp_path / name)) for name in ("whole", "split"))
    assert whole.fingerprint == split.fingerprint
    labels = open_labels(config(tmp_path / "whole"), "train")
    assert (labels is None) == ("0.png" in names)
    with pytest.raises(NoSplitError, match=r"in one of .*, and all others in .*/train"):
        open_source(config(tmp_path / "whole"), "test")


@pytest.mark.parametrize("name", ["val", "Testing", "photos/test", "training", "a/test-set"])
def test_no_split_is_trained_on_by_guessing(name: str, tmp_path: Path) -> None:
    tree(tmp_path, ["a/0.png", f"{name}/b/1.png"])
    with pytest.raises(DataError, match=f"{name}, whose name is that of a split"):
        open_source(config(tmp_path))


def test_flat_folder_has_images_and_no_labels(tmp_path: Path) -> None:
    tree(tmp_path, ["train/0.png", "train/1.png", "test/2.png"])
    assert len(open_source(config(tmp_path))) == 2
    assert open_labels(config(tmp_path), "train") is None
    assert open_labels(config(tmp_path), "test") is None


def test_deep_trees_links_and_any_suffix_count_but_hidden_files_do_not(tmp_path: Path) -> None:
    tree(tmp_path / "train", ["a/b/c/0.png", "a/1.PNG", "a/.hidden.png", "a/.thumbs/2.png"])
    write(tmp_path / "train/a/notes.txt", b"no image")
    write(tmp_path / "train/a/3.JPeG", encode(pixels(3), "JPEG"))
    tree(tmp_path / "far", ["4.png"])
    (tmp_path / "train/linked").symlink_to(tmp_path / "far")
    found = sorted(names(open_source(config(tmp_path))))
    assert found == ["a/1.PNG", "a/3.JPeG", "a/b/c/0.png", "linked/4.png"]


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    strange = os.fsdecode(b"caf\xe9")
    try:
        planted = tree(tmp_path / "train", [f"{strange}/1.png"])
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    source = open_source(config(tmp_path))
    assert torch.equal(source.read(source.ids)[0], as_tensor(planted[f"{strange}/1.png"]))
    assert len(source.fingerprint) == 64


def test_missing_things_are_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty" / "train").mkdir(parents=True)
    write(tmp_path / "other/train/readme.txt", b"")
    wrong = {
        r"needs data\.root=DIR": DataConfig(source="imagefolder"),
        r"nowhere is not a folder; set data\.root": config(tmp_path / "nowhere"),
        r"has no train/, but .*empty/train, whose name is that of a split": config(tmp_path),
        "empty/train holds no images; point": config(tmp_path / "empty"),
        r"other/train holds no images; below .*, 1 left out: .*readme\.txt.*; point": config(
            tmp_path / "other"
        ),
    }
    for message, data in wrong.items():
        with pytest.raises(DataError, match=message):
            open_source(data)
    tree(tmp_path, ["train/a/0.png"])
    with pytest.raises(DataError, match=r"no test split; put its images in one of .*/val"):
        open_source(config(tmp_path), "test")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tree(tmp_path / "pictures", ["train/a/0.png"])
    data = DataConfig(source="imagefolder", root="~/pictures")
    assert len(open_source(data)) == 1
