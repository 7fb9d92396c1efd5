"""Parquet files with a column of images, in the ways that people write them."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data import Source, open_source
from coopt_fl.data.labels import open_labels
from coopt_fl.data.source import CorruptImage
from coopt_fl.data.sources import parquet
from tests.unit.data import make

IMAGES = [make.pixels(k, 4 + k % 3, 5 + k % 2) for k in range(10)]
BYTES = [make.encode(image) for image in IMAGES]
STRUCTS = [{"bytes": image, "path": f"{k}.png"} for k, image in enumerate(BYTES)]


def config(root: Path, **more: object) -> DataConfig:
    return DataConfig(source="parquet", root=str(root), **more)


def assert_planted(source: Source, rows: range) -> None:
    read = source.read(source.ids)
    for image, row in zip(read, rows, strict=True):
        assert torch.equal(image, make.as_tensor(IMAGES[row]))


COLUMNS = {
    "bytes": BYTES,
    "struct": STRUCTS,
    "large binary": pa.array(BYTES, pa.large_binary()),
    "path first": pa.array(
        STRUCTS, pa.struct([pa.field("path", pa.string()), pa.field("bytes", pa.binary())])
    ),
}


@pytest.mark.parametrize("column", list(COLUMNS))
def test_images_of_any_size_in_row_order(column: str, tmp_path: Path) -> None:
    make.parquet(tmp_path / "x-train-00.parquet", COLUMNS[column])
    assert_planted(open_source(config(tmp_path)), range(10))


def test_a_path_without_bytes_is_named(tmp_path: Path) -> None:
    """``datasets`` writes such files for a folder of images without embedding them."""
    images = [STRUCTS[0], {"bytes": None, "path": "photos/1.png"}, {"bytes": None, "path": None}]
    make.parquet(tmp_path / "train.parquet", images)
    source = open_source(config(tmp_path))
    with pytest.raises(CorruptImage, match=r"train\.parquet row 1 .*missing, and photos/1\.png is"):
        source.read(np.array([0, 1]))
    with pytest.raises(CorruptImage, match=r"train\.parquet row 2 .*it holds no bytes"):
        source.read(np.array([2]))


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    make.parquet(tmp_path / "x", BYTES[:2], label=[1, 0])
    (tmp_path / "x").rename(tmp_path / os.fsdecode(b"train-\xff.parquet"))
    source = open_source(config(tmp_path, on_error="skip"))
    assert_planted(source, range(2))
    assert source.where(1) == "train-\\xff.parquet row 1"
    assert open_labels(config(tmp_path), "train").tolist() == [1, 0]
    assert source.column("label").tolist() == ["1", "0"]


def test_files_follow_each_other_by_name(tmp_path: Path) -> None:
    make.parquet(tmp_path / "train-01.parquet", BYTES[4:5])
    make.parquet(tmp_path / "train-00.parquet", STRUCTS[:4])
    make.parquet(tmp_path / "train-02.parquet", BYTES[5:])
    make.parquet(tmp_path / "test.parquet", BYTES[:1])
    source = open_source(config(tmp_path))
    assert_planted(source, range(10))
    assert source.where(0) == "train-00.parquet row 0"
    assert source.where(4) == "train-01.parquet row 0"
    assert source.where(9) == "train-02.parquet row 4"
    assert_planted(open_source(config(tmp_path, limit=6)), range(6))


def test_copy_holds_only_the_rows_used(tmp_path: Path, own_cache: Path) -> None:
    for k in range(3):
        make.parquet(tmp_path / f"train-{k}.parquet", BYTES[3 * k : 3 * k + 3])
    source = open_source(config(tmp_path, limit=5))
    assert_planted(source, range(5))
    (copy,) = own_cache.glob("parquet/*.images")
    assert copy.stat().st_size == sum(map(len, BYTES[:5])) + 6 * 8


def test_small_reads_span_the_copys_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 3)
    make.parquet(tmp_path / "train.parquet", BYTES, row_group=4)
    assert_planted(open_source(config(tmp_path)), range(10))
    assert_planted(open_source(config(tmp_path, limit=7)), range(7))


def test_what_hugging_face_writes_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    rows = {"image": STRUCTS, "label": [k % 2 for k in range(10)]}
    written = datasets.Dataset.from_dict(rows, features=features)
    written.to_parquet(str(tmp_path / "train-00000-of-00001.parquet"))
    assert_planted(open_source(config(tmp_path)), range(10))
    assert open_labels(config(tmp_path), "train").tolist() == rows["label"]


def test_official_cifar_is_read(tmp_path: Path) -> None:
    """CIFAR-10 and CIFAR-100 as on the Hub, whose image column is not called "image"."""
    datasets = pytest.importorskip("datasets")
    classes = datasets.ClassLabel(names=["a", "b"])
    for name, kinds in (("plain_text", ["label"]), ("cifar100", ["fine_label", "coarse_label"])):
        features = datasets.Features({"img": datasets.Image(), **dict.fromkeys(kinds, classes)})
        rows = {"img": STRUCTS, **{kind: [k % 2 for k in range(10)] for kind in kinds}}
        for split in ("train", "test"):
            file = tmp_path / f"{name}/{split}-00000-of-00001.parquet"
            file.parent.mkdir(exist_ok=True)
            datasets.Dataset.from_dict(rows, features=features).to_parquet(str(file))
        data = config(tmp_path / name)
        assert_planted(open_source(data), range(10))
        if kinds == ["label"]:
            assert open_labels(data, "test").tolist() == rows["label"]
            continue
        assert open_labels(data, "train") is None
        assert "fine_label or coarse_label" in open_source(data).notes[0]
        data.label_column = "coarse_label"
        assert open_labels(data, "train").tolist() == rows["coarse_label"]
        assert open_source(data).notes == ()
        data.label_column = "absent"
        with pytest.raises(DataError, match=r"no column absent, but img, fine_label, coarse_labe"):
            open_labels(data, "train")


def test_the_fingerprint_tells_the_column_unless_it_is_the_usual_one(tmp_path: Path) -> None:
    """For a column "image" it is the same as before the column could be chosen."""
    pq.write_table(pa.table({"image": BYTES, "other": BYTES}), tmp_path / "train.parquet")
    usual, other = config(tmp_path), config(tmp_path, image_column="other")
    (sha256,) = {hashlib.sha256((tmp_path / "train.parquet").read_bytes()).digest()}
    content = hashlib.sha256(b"train.parquet\0" + sha256).hexdigest()
    of_before = hashlib.sha256(f"parquet 10 {content}".encode()).hexdigest()
    assert open_source(usual).fingerprint == of_before
    assert open_source(config(tmp_path, image_column="image")).fingerprint == of_before
    assert open_source(other).fingerprint != of_before
    assert_planted(open_source(other), range(10))


def test_files_whose_images_are_in_several_columns_are_refused(tmp_path: Path) -> None:
    make.parquet(tmp_path / "train-0.parquet", BYTES)
    pq.write_table(pa.table({"img": BYTES}), tmp_path / "train-1.parquet")
    with pytest.raises(DataError, match="in several columns, image and img; rename all but one"):
        open_source(config(tmp_path))


def test_test_split(tmp_path: Path) -> None:
    make.parquet(tmp_path / "train.parquet", BYTES[:5])
    with pytest.raises(DataError, match=r"has no \*test\*\.parquet; name the files"):
        open_source(config(tmp_path), "test")
    make.parquet(tmp_path / "validation.parquet", BYTES[5:])
    assert_planted(open_source(config(tmp_path), "test"), range(5, 10))
    make.parquet(tmp_path / "test.parquet", BYTES[:2])
    assert_planted(open_source(config(tmp_path), "test"), range(2))


@pytest.mark.parametrize("kind", [pa.int64(), pa.int8(), pa.uint16()])
def test_labels_of_any_integer_type_and_limit(kind: pa.DataType, tmp_path: Path) -> None:
    numbers = [3, 1, 2, 0, 5, 4, 9, 8, 7, 6]
    make.parquet(tmp_path / "train.parquet", BYTES, label=pa.array(numbers, kind))
    labels = open_labels(config(tmp_path, limit=4), "train")
    assert labels is not None and labels.dtype == np.int64
    assert labels.tolist() == numbers[:4]


@pytest.mark.parametrize(
    "hidden", [[-1, -1], pa.array([None] * 2, "i4"), pa.nulls(2)], ids=["-1", "null", "type"]
)
def test_hidden_labels_are_none(hidden: object, tmp_path: Path) -> None:
    make.parquet(tmp_path / "train.parquet", BYTES[:2], label=hidden)
    assert open_labels(config(tmp_path), "train") is None


def test_no_labels_are_none_and_text_is_numbered(tmp_path: Path) -> None:
    make.parquet(tmp_path / "train.parquet", BYTES[:2])
    assert open_labels(config(tmp_path), "train") is None
    make.parquet(tmp_path / "train.parquet", BYTES[:2], label=["cat", "dog"])
    assert open_labels(config(tmp_path), "train").tolist() == [0, 1]
    make.parquet(tmp_path / "train.parquet", BYTES[:2], label=[[1], [2]])
    with pytest.raises(DataError, match=r"column label of .* holds list.*; store the classes as"):
        open_labels(config(tmp_path), "train")


@pytest.mark.parametrize("lost", [b"", None, b"no image"])
def test_corrupt_row_is_named(lost: bytes | None, tmp_path: Path) -> None:
    make.parquet(tmp_path / "train-00.parquet", BYTES[:4])
    make.parquet(tmp_path / "train-01.parquet", [BYTES[4], lost, BYTES[6]])
    source = open_source(config(tmp_path))
    match = r"train-01\.parquet row 1 \(id 5\) is corrupt: .*data\.on_error=skip"
    with pytest.raises(CorruptImage, match=match) as caught:
        source.read(source.ids)
    assert caught.value.id == 5
    assert torch.equal(source.read(np.array([6]))[0], make.as_tensor(IMAGES[6]))


def test_changed_file_never_meets_an_old_copy(tmp_path: Path) -> None:
    file = make.parquet(tmp_path / "train.parquet", BYTES[:3])
    assert_planted(open_source(config(tmp_path)), range(3))
    make.parquet(file, BYTES[3:6])
    assert_planted(open_source(config(tmp_path)), range(3, 6))


def test_every_unusable_file_is_one_clear_error(tmp_path: Path) -> None:
    def refused(match: str, split: str = "train") -> None:
        with pytest.raises(DataError, match=match):
            open_source(config(tmp_path), split)

    refused(r"has no \*train\*\.parquet")
    pq.write_table(pa.table({"img": range(10), "label": range(10)}), tmp_path / "train.parquet")
    refused(r"has no column of images, but img \(int64\), label \(int64\); choose")
    for strange in (["a.png"], [1], [{"path": "a.png"}], [{"bytes": "text"}]):
        make.parquet(tmp_path / "train.parquet", strange)
        refused("column image of .* store the bytes")
    make.parquet(tmp_path / "train.parquet", pa.array([], pa.binary()), label=pa.array([], "i8"))
    refused("have no rows")
    assert open_labels(config(tmp_path), "train") is None
    make.write(tmp_path / "train.parquet", b"PAR1 torn")
    refused("cannot be read as Parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        open_labels(config(tmp_path), "train")


@pytest.mark.parametrize("root", [None, "nowhere"])
def test_missing_folder(root: str | None) -> None:
    with pytest.raises(DataError, match=r"data\.root=.* is not a folder; set it"):
        open_source(DataConfig(source="parquet", root=root))
