"""Splits by whole words, and labels of which a part is missing, broken or text."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.progress import Progress
from coopt_fl.data import from_arrays, open_labels, open_source, split_labels
from coopt_fl.data.labels import unlabeled
from coopt_fl.data.source import NoSplitError
from coopt_fl.data.sources.parquet import _Labels
from coopt_fl.data.splits import split_of
from coopt_fl.students.doubts import check_data, tell_doubts
from coopt_fl.students.probe import Judge
from tests.unit.data.make import encode, parquet, pixels, tree, write

SPLIT_FOLDERS = ["train", "train/a", "train/b", "val", "val/a"]
IMAGES = [encode(pixels(k)) for k in range(6)]


def shards(root: Path, **more: object) -> DataConfig:
    return DataConfig(source="parquet", root=str(root), **more)


def folder(root: Path) -> DataConfig:
    return DataConfig(source="imagefolder", root=str(root))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.parquet", "train"),
        ("train-00000-of-00002.parquet", "train"),
        ("bacterial-strains-test-0.parquet", "test"),
        ("x-train-latest.parquet", "train"),
        ("train0.parquet", "train"),
        ("my_train2.parquet", "train"),
        ("Training.parquet", "train"),
        ("cifar10_test.parquet", "test"),
        ("valid-1.parquet", "validation"),
        ("validation.parquet", "validation"),
        ("evaluation.parquet", None),
        ("trainval.parquet", None),
        ("contest.parquet", None),
        ("interval.parquet", None),
        ("unsupervised-latest.parquet", None),
    ],
)
def test_a_split_is_a_whole_word_of_a_name(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_a_name_of_two_splits_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "test-of-train.parquet", IMAGES)
    with pytest.raises(DataError, match=r"test-of-train\.parquet names several splits, test and"):
        open_source(shards(tmp_path))


def test_a_file_of_no_split_is_named(tmp_path: Path) -> None:
    parquet(tmp_path / "a-train-latest.parquet", IMAGES)
    parquet(tmp_path / "a-validation-latest.parquet", IMAGES[:5])
    parquet(tmp_path / "a-unsupervised-latest.parquet", IMAGES[:3])
    train, test = (open_source(shards(tmp_path), split) for split in ("train", "test"))
    assert (len(train), len(test)) == (6, 5)
    assert "a-unsupervised-latest.parquet" in train.notes[0]


def test_test_images_that_hide_their_labels_give_way_to_validation(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", IMAGES, label=[0, 1] * 3)
    parquet(tmp_path / "test.parquet", IMAGES[:4], label=[-1] * 4)
    assert (len(open_source(shards(tmp_path), "test")), unlabeled(shards(tmp_path))) == (
        4,
        ["nothing is judged by labels: the test images have none that a train image has, too"],
    )
    parquet(tmp_path / "validation.parquet", IMAGES[:5], label=[1, 0, 1, 0, 1])
    assert open_labels(shards(tmp_path), "test").tolist() == [1, 0, 1, 0, 1]
    assert len(open_source(shards(tmp_path), "test")) == 5
    parquet(tmp_path / "test.parquet", IMAGES[:4], label=[-1, 0, 1, 1])
    assert open_labels(shards(tmp_path), "test").tolist() == [-1, 0, 1, 1]


def test_a_flat_folder_gives_way_to_one_with_classes(tmp_path: Path) -> None:
    tree(tmp_path, ["train/a/0.png", "train/b/1.png", "val/2.png", "test/b/3.png"])
    assert open_labels(folder(tmp_path), "test").tolist() == [1]


def test_a_stray_image_and_a_class_of_the_test_split_alone_are_counted(tmp_path: Path) -> None:
    names = ["train/a/0.png", "train/b/1.png", "train/cover.png", "val/a/2.png", "val/zebra/3.png"]
    tree(tmp_path, [*names, "val/cover.png"])
    labels = {split: open_labels(folder(tmp_path), split) for split in ("train", "test")}
    assert {split: sorted(found.tolist()) for split, found in labels.items()} == {
        "train": [-1, 0, 1],
        "test": [-1, -1, 0],
    }
    assert [sentence.split(" have ")[0] for sentence in unlabeled(folder(tmp_path))] == [
        "1 of 3 train images",
        "2 of 3 test images",
    ]


def test_what_has_no_label_is_not_judged(tmp_path: Path) -> None:
    """The probe sees the same as without the unlabeled images."""
    parquet(tmp_path / "train.parquet", IMAGES, label=[0, -1, 1, None, 0, 1])
    parquet(tmp_path / "test.parquet", IMAGES, label=[7, 0, None, 1, 0, -1])
    train, test = Judge(shards(tmp_path))._splits
    assert (train.ids.tolist(), train.labels.tolist()) == ([0, 2, 4, 5], [0, 1, 0, 1])
    assert test.ids.tolist() == [1, 3, 4]


def test_texts_are_numbered_by_those_of_train(tmp_path: Path) -> None:
    kinds = [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
    ]
    for kind in kinds:
        parquet(tmp_path / "train.parquet", IMAGES, label=pa.array(["dog", "cat", "eel"] * 2, kind))
        test = pa.array(["eel", "zebra", None, "", "cat", "dog"], kind)
        parquet(tmp_path / "test.parquet", IMAGES, label=test)
        assert open_labels(shards(tmp_path, limit=3), "train").tolist() == [1, 0, 2]
        assert open_labels(shards(tmp_path), "test").tolist() == [2, -1, -1, -1, 0, 1]


def test_numbers_of_any_type_that_are_whole(tmp_path: Path) -> None:
    wanted = [1, 0, -1, 1, 0, 1]
    for label in (
        [1.0, 0.0, float("nan"), 1.0, 0.0, 1.0],
        np.array([1, 0, np.nan, 1, 0, 1], np.float16),
        [True, False, None, True, False, True],
        [1, 0, -5, 1, 0, 1],
    ):
        parquet(tmp_path / "train.parquet", IMAGES, label=label)
        assert open_labels(shards(tmp_path), "train").tolist() == wanted
    for label in ([0.5] * 6, [[1]] * 6, [2**64 - 1] * 6):
        wrong = pa.array(label, pa.uint64()) if isinstance(label[0], int) else label
        parquet(tmp_path / "train.parquet", IMAGES, label=wrong)
        with pytest.raises(DataError, match=r"column label of .* store the classes as"):
            open_labels(shards(tmp_path), "train")


def test_texts_in_one_split_and_numbers_in_the_other_are_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", IMAGES, label=[0, 1] * 3)
    parquet(tmp_path / "test.parquet", IMAGES, label=["x", "y"] * 3)
    with pytest.raises(DataError, match=r"text in .*test\.parquet, but not in .*train\.parquet"):
        split_labels(shards(tmp_path), "test")


@pytest.mark.parametrize("texts", ["train", "test"])
def test_a_missing_number_among_them_makes_no_difference(texts: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        label = list("abc") * 2 if split == texts else [0, 1, None, 2, 0, 1]
        parquet(tmp_path / f"{split}.parquet", IMAGES, label=label)
    with pytest.raises(DataError, match=rf"text in .*{texts}\.parquet, but not in .*\.parquet"):
        open_labels(shards(tmp_path), "test")
    parquet(tmp_path / "test.parquet", IMAGES, label=pa.nulls(6, pa.int64()))
    assert split_labels(shards(tmp_path), "test") is None


def test_numbers_that_train_lacks_are_left_out_of_every_source(tmp_path: Path) -> None:
    """A classifier of train's classes cannot be right about them."""
    train, test = [0, 1, 7, -1, 0, 1], [7, 8, 0, -1, 1, 9]
    parquet(tmp_path / "train.parquet", IMAGES, label=train)
    parquet(tmp_path / "test.parquet", IMAGES, label=test)
    noise = np.zeros((6, 4, 4), np.uint8)
    for split, labels in (("train", train), ("test", test)):
        np.save(tmp_path / f"{split}-images.npy", noise)
        np.save(tmp_path / f"{split}-labels.npy", np.array(labels))
    for source in ("parquet", "arrays"):
        data = DataConfig(source=source, root=str(tmp_path))
        assert open_labels(data, "test").tolist() == [7, -1, 0, -1, 1, -1]
        assert unlabeled(data)[1].startswith("3 of 6 test images have no label, or one that no tr")
    parquet(tmp_path / "test.parquet", IMAGES, label=[8, 9] * 3)
    assert split_labels(shards(tmp_path), "test") is None
    assert unlabeled(shards(tmp_path))[1] == (
        "nothing is judged by labels: the test images have none that a train image has, too"
    )


@pytest.mark.parametrize("parts", [{}, {"test_images": np.zeros((3, 4, 4), np.uint8)}])
def test_images_without_labels_are_told_once(parts: dict[str, Any], tmp_path: Path) -> None:
    """What the test split has makes no difference then."""
    data = from_arrays(np.zeros((6, 4, 4), np.uint8), **parts).save(tmp_path)
    (said,) = unlabeled(data)
    assert "the train images have none" in said and "data.source=arrays has labels" in said
    if parts:
        np.save(tmp_path / "test-labels.npy", np.arange(3))
        assert unlabeled(data) == [said]


def test_a_single_class_is_told(tmp_path: Path) -> None:
    """Of classes that are one folder too deep, each of which any student would know."""
    names = [f"{split}/images/{one}/0.png" for split in ("train", "val") for one in "ab"]
    tree(tmp_path, names)
    (said,) = unlabeled(folder(tmp_path))
    assert said.startswith("all 2 labeled train images are of one class")
    tree(tmp_path, ["train/a/0.png"])
    assert unlabeled(folder(tmp_path)) == []


def test_an_empty_file_as_pandas_writes_it_counts_for_nothing(tmp_path: Path) -> None:
    parquet(tmp_path / "train-0.parquet", IMAGES, label=["a", "b"] * 3)
    empty = {"image": pa.nulls(0), "label": pa.nulls(0)}
    pq.write_table(pa.table(empty), tmp_path / "train-1.parquet")
    pq.write_table(pa.table({"other": pa.nulls(0)}), tmp_path / "train-2.parquet")
    parquet(tmp_path / "train-3.parquet", IMAGES[:1])
    source = open_source(shards(tmp_path))
    assert len(source.read(source.ids)) == 7
    assert open_labels(shards(tmp_path), "train").tolist() == [0, 1] * 3 + [-1]


def test_a_test_file_without_rows_counts_as_none(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", IMAGES, label=[0, 1] * 3)
    parquet(tmp_path / "test.parquet", pa.array([], pa.binary()), label=pa.array([], pa.int64()))
    with pytest.raises(NoSplitError, match=r"test\.parquet in .* have no rows"):
        open_source(shards(tmp_path), "test")
    assert split_labels(shards(tmp_path), "test") is None
    tell_doubts(shards(tmp_path), Told())
    assert len(Judge(shards(tmp_path))._splits) == 1
    parquet(tmp_path / "validation.parquet", IMAGES[:5], label=[1, 0, 1, 0, 1])
    assert len(open_source(shards(tmp_path), "test")) == 5
    assert split_labels(shards(tmp_path), "test").tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("name", ["image", "label"])
def test_two_columns_of_one_name_are_refused(name: str, tmp_path: Path) -> None:
    columns = [pa.array(IMAGES), pa.array([0, 1] * 3), pa.array(IMAGES)]
    pq.write_table(pa.table(columns, ["image", "label", name]), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=rf"has 2 columns {name}; rename all but one"):
        open_source(shards(tmp_path))
        open_labels(shards(tmp_path), "train")


class Told(Progress):
    """Keeps the warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings = list[str]()

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_each_folder_is_listed_once_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, ["train/a/0.png", "train/b/1.png", "val/a/2.png"])
    real, seen = os.scandir, list[str]()

    def scandir(path: bytes) -> object:
        seen.append(os.fsdecode(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    check_data(folder(tmp_path), None, Told())
    assert sorted(seen) == [f"{tmp_path}/{below}" for below in SPLIT_FOLDERS]
    tell_doubts(folder(tmp_path), Told())
    assert len(seen) == 2 * len(SPLIT_FOLDERS), "and again the next time"


def test_what_is_missing_is_said_before_the_work(tmp_path: Path) -> None:
    tree(tmp_path / "tree", ["train/0.png", "train/a.md"])
    write(tmp_path / "tree/train/a.md", b"words")
    for missing in (["the train images have none"], ["1 of 3 train images", "no test split"]):
        told = Told()
        tell_doubts(folder(tmp_path / "tree"), told)
        for said, words in zip(told.warnings, ["a.md", *missing], strict=True):
            assert words in said
        tree(tmp_path / "tree", ["train/a/1.png", "train/b/2.png"])
    parquet(tmp_path / "torn/train.parquet", IMAGES, label=[0, 1] * 3)
    write(tmp_path / "torn/test.parquet", b"PAR1 torn")
    with pytest.raises(DataError, match=r"test\.parquet cannot be read as Parquet"):
        tell_doubts(shards(tmp_path / "torn"), told)
    assert np.array_equal(open_labels(shards(tmp_path / "torn"), "train"), [0, 1] * 3)


def test_the_labels_of_a_file_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test"):
        parquet(tmp_path / f"{split}.parquet", IMAGES, label=list("abcabc"))
    real, read = _Labels._rows, list[str]()

    def rows(self: _Labels, file: Path, column: str) -> object:
        read.append(file.name)
        return real(self, file, column)

    monkeypatch.setattr(_Labels, "_rows", rows)
    for ask in (
        lambda: open_labels(shards(tmp_path), "test"),
        lambda: check_data(shards(tmp_path), None, Told()),
    ):
        ask()
        assert sorted(read) == ["test.parquet", "train.parquet"]
        read.clear()
