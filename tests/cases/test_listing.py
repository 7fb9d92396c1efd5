"""Folders as people have them: every image once, nothing that hangs, and what is left out named."""

import os
from pathlib import Path

import numpy as np
import pytest

from coopt_fl.config.schema import DataConfig, SplitConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.files import read_regular
from coopt_fl.data import batches, open_labels, open_source
from coopt_fl.data.listing import listed
from coopt_fl.data.source import CorruptImage, NoSplitError
from tests.unit.data.make import encode, parquet, pixels, tree, write

NAMES = ["a/0.png", "a/1.png", "b/2.png"]


def folder(root: Path, **more: object) -> DataConfig:
    return DataConfig(source="imagefolder", root=str(root), **more)


def names(data: DataConfig) -> list[str]:
    source = open_source(data)
    return sorted(source.where(id) for id in source.ids.tolist())


@pytest.mark.parametrize("links", [["a/again"], ["a/again", "b/again"]])
def test_a_link_to_the_folder_above_adds_nothing(links: list[str], tmp_path: Path) -> None:
    tree(tmp_path / "train", NAMES)
    for link in links:
        (tmp_path / "train" / link).symlink_to("..")
    assert names(folder(tmp_path)) == NAMES
    (note,) = open_source(folder(tmp_path)).notes
    assert f"{len(links)} left out: a link to a folder" in note and "a/again" in note


def test_a_link_out_of_the_split_and_back_does_not_bring_the_test_images(tmp_path: Path) -> None:
    tree(tmp_path, ["train/a/0.png", "val/a/1.png"])
    (tmp_path / "train/a/up").symlink_to(tmp_path)
    assert names(folder(tmp_path)) == ["a/0.png"]


def test_a_folder_linked_twice_is_listed_once_by_its_own_path_or_the_first(tmp_path: Path) -> None:
    tree(tmp_path / "far", ["x/0.png"])
    tree(tmp_path / "train", ["b/1.png"])
    (tmp_path / "train/a").symlink_to("b")
    for link in ("d", "c"):
        (tmp_path / "train" / link).symlink_to(tmp_path / "far")
    (tmp_path / "train/aa").symlink_to(tmp_path / "far/x")
    assert names(folder(tmp_path)) == ["aa/0.png", "b/1.png"]


@pytest.mark.parametrize("link", ["train/more", "train/a/more", "train/a/1.png", "train/a/deep"])
def test_links_to_the_test_images_are_not_trained_on(link: str, tmp_path: Path) -> None:
    tree(tmp_path, ["train/a/0.png", "val/a/1.png", "val/deep/2.png"])
    target = {"1.png": "val/a/1.png", "deep": "val/deep"}.get(Path(link).name, "val")
    (tmp_path / link).symlink_to(tmp_path / target)
    assert names(folder(tmp_path)) == ["a/0.png"]
    assert open_labels(folder(tmp_path), "train").tolist() == [0]
    (note,) = open_source(folder(tmp_path)).notes
    assert f"1 left out: of another split, or a link there ({link.removeprefix('train/')})" in note
    assert len(open_source(folder(tmp_path), "test")) == 2


def test_a_link_to_what_is_trained_on_is_no_test_split(tmp_path: Path) -> None:
    tree(tmp_path, ["train/a/0.png", "train/b/1.png"])
    (tmp_path / "val").symlink_to("train")
    assert len(open_source(folder(tmp_path))) == 2
    with pytest.raises(NoSplitError, match="has no test split"):
        open_source(folder(tmp_path), "test")
    (tmp_path / "val").unlink()
    (tmp_path / "val").mkdir()
    (tmp_path / "val/a").symlink_to("../train/a")
    with pytest.raises(DataError, match=r"val holds no images; .* of another split"):
        open_source(folder(tmp_path), "test")


def test_a_chosen_test_folder_is_not_trained_on(tmp_path: Path) -> None:
    tree(tmp_path, ["a/0.png", "b/1.png", "kept/a/2.png"])
    data = folder(tmp_path, split=SplitConfig(test="kept"))
    assert names(data) == ["a/0.png", "b/1.png"]
    assert open_labels(data, "train").max() == 1 and open_labels(data, "test").tolist() == [0]


def test_a_link_to_a_file_beside_it_adds_nothing(tmp_path: Path) -> None:
    tree(tmp_path, ["train/a/0.png", "far/1.png"])
    (tmp_path / "train/a/again.png").symlink_to("0.png")
    for link in ("b", "c"):  # as in a store of equal files, where each stands for a copy
        (tmp_path / f"train/a/{link}.png").symlink_to(tmp_path / "far/1.png")
    assert names(folder(tmp_path)) == ["a/0.png", "a/b.png", "a/c.png"]
    (note,) = open_source(folder(tmp_path)).notes
    assert "1 left out: a link to a file that is listed already (a/again.png)" in note


def test_hidden_folders_are_neither_splits_nor_classes(tmp_path: Path) -> None:
    tree(tmp_path, ["a/0.png", ".cache/train/0.png"])
    assert names(folder(tmp_path)) == ["a/0.png"]
    for split in ("train", "val"):
        (tmp_path / split / ".ipynb_checkpoints").mkdir(parents=True)
    tree(tmp_path, ["train/a/0.png", "val/1.png", "test/a/2.png", "test/a/3.png"])
    assert open_labels(folder(tmp_path), "test").tolist() == [0, 0]


def test_pipes_are_left_out_and_named(tmp_path: Path) -> None:
    tree(tmp_path / "train", NAMES)
    os.mkfifo(tmp_path / "train/a/pipe.png")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "train/b/linked.png").symlink_to(tmp_path / "pipe")
    assert names(folder(tmp_path)) == NAMES
    assert open_source(folder(tmp_path)).notes == (
        f"below {tmp_path}/train, 2 left out: neither a file nor a folder "
        "(a/pipe.png, b/linked.png)",
    )


def test_a_link_that_leads_nowhere_is_skipped_if_that_is_asked_for(tmp_path: Path) -> None:
    tree(tmp_path / "train", NAMES)
    (tmp_path / "train/a/x.png").symlink_to("/nonexistent/blob.png")
    (tmp_path / "train/a/self.png").symlink_to("self.png")
    with pytest.raises(DataError, match=r"a/.*\.png cannot be read .*data\.on_error=skip"):
        _ = open_source(folder(tmp_path)).fingerprint
    source = open_source(folder(tmp_path, on_error="skip"))
    before = source.fingerprint
    (batch,) = batches(source, [source.ids], 9, "skip")
    assert sorted(map(source.where, batch.skipped)) == ["a/self.png", "a/x.png"]
    with pytest.raises(CorruptImage, match="No such file"):
        source.read(np.array([id for id in batch.skipped if source.where(id) == "a/x.png"]))
    (tmp_path / "train/a/x.png").unlink()
    write(tmp_path / "train/a/x.png", encode(pixels(9)))
    assert open_source(folder(tmp_path, on_error="skip")).fingerprint != before


def test_an_image_is_known_by_its_content_whatever_its_suffix(tmp_path: Path) -> None:
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "JPEG2000"):
        write(tmp_path / f"train/a/{kind}", encode(pixels(0, 16, 16), kind))
    write(tmp_path / "train/a/photo.jfif", encode(pixels(1), "JPEG"))
    tree(tmp_path / "train", ["a/._0.png"])
    write(tmp_path / "train/a/readme.md", b"# words")
    write(tmp_path / "train/a/JPEG.txt", encode(pixels(1), "JPEG"))
    for k in range(4):
        write(tmp_path / f"train/b/{k}.heic", b"\0\0\0\x18ftypheic")
    source = open_source(folder(tmp_path))
    assert len(source.read(source.ids)) == len(source) == 7
    (note,) = source.notes
    assert "6 left out: no image by its suffix or its first bytes (a/JPEG.txt, a/readme.md" in note


def test_a_folder_that_cannot_be_entered_is_named_or_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for anybody but root, who runs these tests in containers."""
    tree(tmp_path / "train", NAMES)
    scandir = os.scandir

    def locked(path: bytes) -> object:
        if path.endswith(b"/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(DataError, match="train/b cannot be listed: Permission denied"):
        names(folder(tmp_path))
    assert names(folder(tmp_path, on_error="skip")) == ["a/0.png", "a/1.png"]
    (note,) = open_source(folder(tmp_path, on_error="skip")).notes
    assert "1 left out: a folder that cannot be entered (b)" in note


def test_all_of_a_large_deep_tree_is_listed(tmp_path: Path) -> None:
    below = "/".join(["d"] * 200)
    for k in range(5):
        write(tmp_path / below / f"{k}.png", b"")
    assert len(listed(tmp_path, lambda path: "").paths) == 5


def shards(root: Path, **more: object) -> DataConfig:
    return DataConfig(source="parquet", root=str(root), **more)


def test_what_lies_beside_parquet_files_is_left_out(tmp_path: Path) -> None:
    images = [encode(pixels(k)) for k in range(3)]
    parquet(tmp_path / "train-0.pq", images, label=[0, 1, 2])
    write(tmp_path / "._train-0.parquet", b"\0\5\x16\7" + bytes(4092))
    write(tmp_path / "train.md", b"words")
    (tmp_path / "train-2.parquet").mkdir()
    (tmp_path / "more").mkdir()
    os.mkfifo(tmp_path / "train-1.parquet")
    source = open_source(shards(tmp_path))
    assert len(source) == 3 and open_labels(shards(tmp_path), "train").tolist() == [0, 1, 2]
    assert [note.partition("left out: ")[2] for note in source.notes] == [
        "a folder (train-2.parquet)",
        "neither a file nor a folder (train-1.parquet)",
        "no Parquet by its suffix or its first bytes (train.md)",
    ]


def test_a_link_to_the_test_file_is_not_trained_on(tmp_path: Path) -> None:
    for count, split in enumerate(("train", "test"), 1):
        parquet(tmp_path / f"{split}.parquet", [encode(pixels(0))] * count)
    (tmp_path / "train-b.parquet").symlink_to("test.parquet")
    train, test = (open_source(shards(tmp_path), split) for split in ("train", "test"))
    assert (len(train), len(test)) == (1, 2)
    assert "a link to a file that is listed already (train-b.parquet)" in train.notes[0]


def test_a_parquet_file_that_cannot_be_read_is_skipped_if_that_is_asked_for(tmp_path: Path) -> None:
    parquet(tmp_path / "train-0.parquet", [encode(pixels(0))])
    (tmp_path / "train-1.parquet").symlink_to("/nonexistent/blob")
    with pytest.raises(DataError, match=r"train-1\.parquet cannot be read as Parquet"):
        open_source(shards(tmp_path))
    source = open_source(shards(tmp_path, on_error="skip"))
    assert (
        len(source) == 1
        and "1 left out: Parquet that cannot be read (train-1.parquet)" in source.notes[0]
    )


def test_a_torn_parquet_file_is_skipped_if_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of which not even the schema can be read, and one of which a row group cannot."""
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path / "cache"))
    images = [encode(pixels(k)) for k in range(4)]
    parquet(tmp_path / "train-0.parquet", images[:2], label=[0, 1])
    write(tmp_path / "train-1.parquet", (tmp_path / "train-0.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"train-1\.parquet cannot be read .*data\.on_error=skip"):
        open_source(shards(tmp_path))
    data = shards(tmp_path, on_error="skip")
    assert len(open_source(data)) == 2 and open_labels(data, "train").tolist() == [0, 1]
    assert "1 left out: Parquet that cannot be read (train-1.parquet)" in open_source(data).notes[0]
    third = parquet(tmp_path / "train-2.parquet", images[2:], row_group=1, label=[1, 0])
    content = bytearray(third.read_bytes())
    at = content.index(images[3])
    content[at - 40 : at] = bytes(40)  # the head of the page
    third.write_bytes(content)
    source = open_source(data)
    (batch,) = batches(source, [source.ids], 9, "skip")
    assert (batch.ids.tolist(), batch.skipped) == ([0, 1, 2], (3,))
    with pytest.raises(CorruptImage, match=r"train-2\.parquet row 1"):
        source.read(np.array([3]))


def test_numbered_files_that_are_missing_are_named(tmp_path: Path) -> None:
    """With what follows the numbers, too, which was another hash for each file."""
    image = [encode(pixels(0))]
    for name in ("train-00001-of-00003-a9f", "train-00002-of-00003-3bc", "test-00000-of-00001"):
        parquet(tmp_path / f"data/{name}.parquet", image)
    (note,) = open_source(shards(tmp_path)).notes
    assert "1 of the files that the names of others count are missing" in note
    assert "(data/train-00000-of-00003)" in note
    assert open_source(shards(tmp_path), "test").notes == ()


def test_files_that_are_counted_from_one_are_all_there(tmp_path: Path) -> None:
    for number in (1, 2):
        parquet(tmp_path / f"train-{number:05}-of-00002.parquet", [encode(pixels(0))])
    assert open_source(shards(tmp_path)).notes == ()


def lists(root: Path, rows: str, **more: object) -> DataConfig:
    write(root / "list.csv", f"path,label,split\n{rows}".encode())
    return DataConfig(source="manifest", root=str(root / "list.csv"), **more)


def test_a_file_that_is_listed_twice_counts_once_and_never_for_both_splits(tmp_path: Path) -> None:
    tree(tmp_path, NAMES)
    rows = "a/0.png,x,train\na/1.png,y,train\n./a/0.png,x,train\n"
    rows += "a//1.png,y,test\nb/2.png,x,test\nb/2.png,x,test\nb/2.png,y,test\n"
    data = lists(tmp_path, rows)
    train, test = open_source(data), open_source(data, "test")
    assert [train.where(0), train.where(1), test.where(0)] == ["a/0.png", "a/1.png", "b/2.png"]
    assert (len(train), len(test)) == (2, 1)
    assert open_labels(data, "train").tolist() == [0, 1]
    assert open_labels(data, "test").tolist() == [0]
    assert train.column("split").tolist() == ["train", "train"]
    assert [note.partition("left out: ")[2] for note in (*train.notes, *test.notes)] == [
        "listed twice (./a/0.png)",
        "listed to train on, too (a//1.png)",
        "listed twice (b/2.png)",
        "listed again with another label; the first counts (b/2.png)",
    ]


def test_labels_that_mean_the_same_class_are_no_other_label(tmp_path: Path) -> None:
    tree(tmp_path, NAMES)
    data = lists(tmp_path, "a/0.png,1,train\na/0.png,01,train\na/1.png,2,train\na/1.png,,train\n")
    assert [note.partition("left out: ")[2] for note in open_source(data).notes] == [
        "listed twice (a/0.png)",
        "listed again with another label; the first counts (a/1.png)",
    ]


def test_a_list_that_cannot_be_read_is_skipped_if_that_is_asked_for(tmp_path: Path) -> None:
    tree(tmp_path, NAMES)
    write(tmp_path / "train-0.csv", b"path\na/0.png\n")
    (tmp_path / "train-1.csv").symlink_to("nowhere")
    data = DataConfig(source="manifest", root=str(tmp_path))
    with pytest.raises(DataError, match=r"train-1\.csv cannot be read as a list"):
        open_source(data)
    data.on_error = "skip"
    source = open_source(data)
    assert len(source) == 1 and "1 left out: unreadable (train-1.csv)" in source.notes[0]


@pytest.mark.parametrize("what", ["images", "labels"])
@pytest.mark.parametrize("how", ["link", "pipe", "folder"])
def test_an_array_that_is_no_file_is_not_taken_for_a_missing_one(
    what: str, how: str, tmp_path: Path
) -> None:
    data = DataConfig(source="arrays", root=str(tmp_path))
    for split in ("train", "test"):
        np.save(tmp_path / f"{split}-images.npy", np.zeros((2, 4, 4), np.uint8))
        np.save(tmp_path / f"{split}-labels.npy", np.arange(2))
    assert open_labels(data, "test").tolist() == [0, 1]
    path = tmp_path / f"test-{what}.npy"
    path.unlink()
    {"link": lambda: path.symlink_to("nowhere"), "pipe": lambda: os.mkfifo(path)}.get(
        how, path.mkdir
    )()
    with pytest.raises(DataError, match=rf"test-{what}\.npy is no regular file") as caught:
        open_source(data, "test")
    assert not isinstance(caught.value, NoSplitError)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path / "0.png", b"x")
    os.mkfifo(tmp_path / "1.png")
    assert read_regular(tmp_path / "0.png") == b"x"
    with pytest.raises(OSError, match="no regular file"):
        read_regular(tmp_path / "1.png")
