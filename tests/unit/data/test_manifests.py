"""Lists of images and labels, as people and programs write them."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data import batches, open_labels, open_source
from coopt_fl.data.source import NoSplitError
from tests.unit.data.make import as_tensor, encode, pixels, tree, write


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with four images."""
    tree(tmp_path / "photos", [f"{row}.png" for row in range(4)])
    return tmp_path


def listed(path: Path, text: str, encoding: str = "utf-8", **more: object) -> DataConfig:
    write(path, text.encode(encoding))
    return DataConfig("manifest", str(path), **more)


def assert_rows(data: DataConfig, rows: list[int], labels: list[int] | None) -> None:
    source = open_source(data)
    for image, row in zip(source.read(source.ids), rows, strict=True):
        assert torch.equal(image, as_tensor(pixels(row)))
    found = open_labels(data, "train")
    assert (None if found is None else found.tolist()) == labels


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("a.csv", "path,label\nphotos/2.png,b\nphotos/0.png,a\n", [1, 0]),
        ("a.csv", "label,path\n7,photos/2.png\n,photos/0.png\n", [7, -1]),
        ("a.csv", "\ufeffpath,label\r\nphotos/2.png,1.0\r\nphotos/0.png,0.0\r\n", [1, 0]),
        ("a.csv", 'path,label\n"photos/2.png","two\nlines"\nphotos/0.png,a', [1, 0]),
        ("a.csv", "path\nphotos/2.png\nphotos/0.png\n", None),
        ("a.tsv", "file_name\tlabel\nphotos/2.png\tb, c\nphotos/0.png\ta\n", [1, 0]),
        ("a.JSONL", '{"path": "photos/2.png", "label": 1}\n{"path": "photos/0.png"}\n', [1, -1]),
        ("a.jsonl", '{"image": "photos/2.png", "label": "b"}\n{"image": "photos/0.png"}', [0, -1]),
        ("a.csv", "path,label\nphotos/2.png,NA\nphotos/0.png,null\n", [0, 1]),
        ("a.csv", "path,label\nphotos/2.png,10\nphotos/0.png,9\n", [10, 9]),
    ],
)
def test_rows_in_order(name: str, text: str, labels: list[int] | None, photos: Path) -> None:
    assert_rows(listed(photos / name, text), [2, 0], labels)


def test_any_column_is_known_of_the_images_that_are_taken(photos: Path) -> None:
    text = "path,site,split\nphotos/2.png,south,train\nphotos,east,train\nphotos/0.png,,train\n"
    data = listed(photos / "a.csv", f"{text}photos/1.png,north,test\nphotos/3.png,west,train\n")
    source = pickle.loads(pickle.dumps(open_source(data)))
    assert source.column("site").tolist() == ["south", "", "west"]
    assert source.column("split").tolist() == ["train"] * 3 and source.column("label") is None
    assert open_source(data, "test").column("site").tolist() == ["north"]
    write(photos / "two/train-1.jsonl", b'{"path": "/a.png", "site": 7}')
    write(photos / "two/train-2.jsonl", b'{"path": "/b.png"}\n{"path": "/c.png", "site": 8}')
    more = DataConfig("manifest", str(photos / "two"), limit=2)
    assert open_source(more).column("site").tolist() == ["7", ""]


def test_a_test_list_without_rows_counts_as_none(photos: Path) -> None:
    write(photos / "train.csv", b"path,label\nphotos/0.png,a\n")
    write(photos / "test.csv", b"path,label\n")
    data = DataConfig("manifest", str(photos))
    with pytest.raises(NoSplitError, match="lists no test images"):
        open_source(data, "test")
    write(photos / "val.csv", b"path,label\nphotos/1.png,a\n")
    assert open_source(data, "test").where(0) == "photos/1.png"


def test_absolute_paths_names_that_are_no_text_and_those_of_other_folders(photos: Path) -> None:
    odd = os.fsencode(photos / "lists") + b"/\xff.png"
    (photos / "lists").mkdir()
    Path(os.fsdecode(odd)).write_bytes(encode(pixels(1)))
    absolute = os.fsencode(photos / "photos/3.png")
    content = b"path\n" + b"\n".join([absolute, b"../photos/0.png", b"\xff.png"])
    write(photos / "lists/a.csv", content)
    assert_rows(DataConfig("manifest", str(photos / "lists/a.csv")), [3, 0, 1], None)


def test_columns_are_chosen(photos: Path) -> None:
    text = "path,image,breed\nx.png,photos/1.png,pug\ny.png,photos/3.png,cur\n"
    with pytest.raises(
        DataError, match=r"several columns .*, path and image; .*data\.image_column"
    ):
        open_source(listed(photos / "a.csv", text))
    data = listed(photos / "a.csv", text, image_column="image", label_column="breed")
    assert_rows(data, [1, 3], [1, 0])
    data.label_column = "bread"
    with pytest.raises(DataError, match=r"no column bread, but path, image, breed.*label_column"):
        open_labels(data, "train")
    with pytest.raises(DataError, match=r"no column path; its columns are photos/1\.png, pug: ch"):
        open_source(listed(photos / "a.csv", "photos/1.png,pug\nphotos/3.png,cur\n"))
    with pytest.raises(DataError, match="two columns of one name"):
        open_source(listed(photos / "a.csv", "path,label,label\na,b,c\n"))


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", ""), ("a.csv", "path,label\na,b,c\n"), ("a.jsonl", "{}}"), ("a.jsonl", "[1]")],
)
def test_what_is_no_list_is_one_sentence(name: str, text: str, photos: Path) -> None:
    with pytest.raises(DataError, match=rf"{name} (cannot be read as a list of images|has no col)"):
        open_source(listed(photos / name, text))


def test_text_of_another_encoding_is_one_sentence(photos: Path) -> None:
    text = "path,label\nphotos/1.png,K\xe4fer\n"
    with pytest.raises(DataError, match=r"cannot be read as a list of images .*UTF"):
        open_source(listed(photos / "a.csv", text, "latin-1"))


def test_a_missing_file_is_named_or_skipped_and_a_pipe_is_left_out(photos: Path) -> None:
    os.mkfifo(photos / "photos/pipe.png")
    rows = ["photos/0.png,a", "photos/gone.png,b", "photos/pipe.png,c", "photos,d", ",e"]
    data = listed(photos / "a.csv", "\n".join(["path,label", *rows, "photos/3.png,f"]))
    with pytest.raises(DataError, match=r"gone\.png cannot be read .*data\.on_error=skip"):
        _ = open_source(data).fingerprint
    data.on_error = "skip"
    source = open_source(data)
    (batch,) = batches(source, [source.ids], 9, "skip")
    assert (batch.ids.tolist(), batch.skipped, len(source.fingerprint)) == ([0, 2], (1,), 64)
    assert open_labels(data, "train").tolist() == [0, 1, 5]
    assert "3 left out: a folder, a pipe or the like" in source.notes[0]
    secret = write(photos / "elsewhere/id_rsa", b"-----BEGIN KEY-----")
    write(photos / "elsewhere/photo", encode(pixels(2)))
    data = listed(photos / "c.csv", f"path\n{secret}\nelsewhere/photo\n")
    assert_rows(data, [2], None)
    assert "1 left out: no image by its suffix or its first bytes" in open_source(data).notes[0]
    with pytest.raises(DataError, match="lists no train images"):
        open_source(listed(photos / "b.csv", "path\nphotos\n"))


def test_a_list_without_splits_is_for_training(photos: Path) -> None:
    data = listed(photos / "a.csv", "path,label\nphotos/1.png,1\n")
    with pytest.raises(NoSplitError, match=r"has no column split: add one"):
        open_source(data, "test")
    data = listed(photos / "a.csv", "path,split\nphotos/1.png,holdout\nphotos/2.png,\n")
    with pytest.raises(DataError, match=r"says holdout, and nowhere train: .*data\.split\.train"):
        open_source(data)
    data.split.train = "holdout"
    assert_rows(data, [1], None)


def test_a_folder_of_lists(photos: Path) -> None:
    """Labels of all lists together are numbers, or texts."""
    listed(photos / "train.csv", "path,label\nphotos/0.png,1\nphotos/1.png,x\n")
    listed(photos / "test.csv", "path,label\nphotos/2.png,1\n")
    write(photos / "notes.csv", b"a,b\n1,2\n")
    data = DataConfig("manifest", str(photos))
    assert_rows(data, [0, 1], [0, 1])
    assert open_labels(data, "test").tolist() == [0]
    (note,) = open_source(data).notes
    assert "1 left out: no word of the name is train, test or validation (notes.csv)" in note
