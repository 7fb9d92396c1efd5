"""Layouts of split files, as people and the Hugging Face Hub use them."""

from pathlib import Path

import pytest

from coopt_fl.config.schema import DataConfig, SplitConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data.source import NoSplitError
from coopt_fl.data.split_files import Files, below, choose
from coopt_fl.data.splits import names, split_of_path
from tests.unit.data.make import write


def chosen(root: Path, paths: str, split: str = "train", **more: object) -> Files:
    for path in paths.split():
        write(root / path, b"")
    data = DataConfig(root=str(root), split=SplitConfig(**more))
    return choose(below(data, lambda path: "", ".x"), data, split, ".x", lambda train, some: True)


@pytest.mark.parametrize(
    ("there", "train", "test"),
    [
        ("train.x test.x", "train.x", "test.x"),
        (
            "data/train-0.x data/train-1.x data/test-0.x",
            "data/train-0.x data/train-1.x",
            "data/tes",
        ),
        ("default/train/0.x default/test/0.x", "default/train/0.x", "default/test/0.x"),
        ("train/0.x train/sub/1.x val/0.x", "train/0.x train/sub/1.x", "val/0.x"),
        ("test-bed/train.x test-bed/validation.x", "test-bed/train.x", "test-bed/validation.x"),
        ("train.x test.x old/train.x", "train.x", "test.x"),
        ("0.x 1.x", "0.x 1.x", ""),
        ("latest/0.x strains/1.x", "latest/0.x strains/1.x", ""),
    ],
)
def test_where_files_lie(there: str, train: str, test: str, tmp_path: Path) -> None:
    assert chosen(tmp_path, there).names == train.split()
    if test:
        assert " ".join(chosen(tmp_path, "", "test").names).startswith(test)
    else:
        with pytest.raises(NoSplitError, match=r"no \*test\*\.x"):
            chosen(tmp_path, "", "test")


def test_several_configurations_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"configurations, de, en: set data.root .*{tmp_path}/en"):
        chosen(tmp_path, "en/train-0.x de/train-0.x en/test.x")
    assert chosen(tmp_path / "en", "").names == ["train-0.x"]


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    (note,) = chosen(tmp_path, "train.x extra.x more.x").notes
    assert note.endswith(
        "2 left out: no word of the name is train, test or validation (extra.x, more.x)"
    )
    (note,) = chosen(tmp_path / "other", "a.x b.x").notes
    assert note.endswith("no name says train or test, so all are to train on: 2 (a.x, b.x)")


def test_names_of_splits_are_those_of_the_configuration(tmp_path: Path) -> None:
    there = "train-clean.x train-noisy.x train-cleaner.x check.x"
    assert chosen(tmp_path, there, train="train-clean").names == ["train-clean.x"]
    assert chosen(tmp_path, "", "test", test="check").names == ["check.x"]
    with pytest.raises(DataError, match=r"has no \*clear\*\.x"):
        chosen(tmp_path, "", train="clear")


def test_validation_is_not_judged_on_if_it_is_trained_on(tmp_path: Path) -> None:
    there = "train.x validation.x"
    assert chosen(tmp_path, there, train="validation").names == ["validation.x"]
    with pytest.raises(NoSplitError):
        chosen(tmp_path, "", "test", train="validation")


@pytest.mark.parametrize(
    ("path", "split", "wanted"),
    [
        ("a/Train2/0.x", "train2", True),
        ("a/train20/0.x", "train2", False),
        ("restrain.x", "train", False),
        ("train_a.x", "train", True),
        ("x-train.x", "x-train", True),
    ],
)
def test_a_name_is_whole_words(path: str, split: str, wanted: bool) -> None:
    assert names(path, split) == wanted


def test_the_nearest_name_counts() -> None:
    assert split_of_path("tests/data/train/0.x") == "train"
    assert split_of_path("data/0.x") is None
