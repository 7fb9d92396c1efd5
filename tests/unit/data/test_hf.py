"""Sources that ``datasets`` opens, without a network and so without names on the Hub."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coopt_fl.config.load import from_tree
from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import ConfigError, DataError
from coopt_fl.data import open_labels, open_source
from coopt_fl.data.source import CorruptImage, NoSplitError
from coopt_fl.data.sources import hf
from tests.unit.data.make import as_tensor, encode, pixels, tree, write
from tests.unit.data.pack import repository, saved

datasets = pytest.importorskip("datasets")

BYTES = [encode(pixels(seed)) for seed in range(6)]
SPLIT = BYTES, ["1", "0", "1", "0", "1", "0"]


def config(root: object, **more: object) -> DataConfig:
    return DataConfig("hf", str(root), **more)


def made(columns: dict[str, Any], kinds: dict[str, Any]) -> Any:
    whole = datasets.Dataset.from_dict(columns)
    for name, kind in kinds.items():
        whole = whole.cast_column(name, kind)
    return whole


def assert_seeds(data: DataConfig, *seeds: int, split: str = "train") -> None:
    source = open_source(data, split)
    for image, seed in zip(source.read(source.ids), seeds, strict=True):
        assert torch.equal(image, as_tensor(pixels(seed)))


def test_one_split_alone_is_for_training(tmp_path: Path) -> None:
    """Images may be bytes in a column of any name, not declared as an image."""
    made({"photo": BYTES, "n": [*range(6)]}, {}).save_to_disk(tmp_path / "one")
    assert_seeds(config(tmp_path / "one"), 0, 1, 2, 3, 4, 5)
    assert open_labels(config(tmp_path / "one"), "train") is None
    with pytest.raises(NoSplitError, match="has the splits train, and none called test"):
        open_source(config(tmp_path / "one"), "test")


def test_rows_that_were_chosen_and_shuffled(tmp_path: Path) -> None:
    whole = made({"img": BYTES}, {"img": datasets.Image()})
    whole.select([4, 1, 3]).save_to_disk(tmp_path / "some")
    assert_seeds(config(tmp_path / "some"), 4, 1, 3)


def test_several_shards_have_the_fingerprint_of_one(tmp_path: Path) -> None:
    whole = made({"img": BYTES}, {"img": datasets.Image()})
    for count in (1, 3):
        whole.save_to_disk(tmp_path / str(count), num_shards=count)
        assert_seeds(config(tmp_path / str(count)), 0, 1, 2, 3, 4, 5)
    one, three = (open_source(config(tmp_path / str(count))) for count in (1, 3))
    assert one.fingerprint == three.fingerprint


def test_class_labels_of_any_name(tmp_path: Path) -> None:
    kinds = {"img": datasets.Image(), "breed": datasets.ClassLabel(names=["cur", "pug"])}
    whole = made({"img": BYTES, "breed": [1, 0, 1, 1, 0, 0]}, kinds)
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(tmp_path / "two")
    assert open_labels(config(tmp_path / "two"), "test").tolist() == [1, 0, 1, 1, 0, 0]
    assert open_labels(config(tmp_path / "two", label_column="breed"), "train") is not None
    with pytest.raises(DataError, match=r"no column bred, but img, breed; .*data\.label_column"):
        open_labels(config(tmp_path / "two", label_column="bred"), "train")


def test_splits_that_may_both_be_meant_are_named(tmp_path: Path) -> None:
    whole = made({"img": BYTES}, {})
    names = ("train_a", "train_b", "extra")
    datasets.DatasetDict(dict.fromkeys(names, whole)).save_to_disk(tmp_path / "several")
    data = config(tmp_path / "several")
    with pytest.raises(DataError, match=r"train_a and train_b may be meant.*data\.split\.train"):
        open_source(data)
    data.split.train, data.split.test = "extra", "train_a"
    assert len(open_source(data)) == len(open_source(data, "test")) == 6


def test_a_repository_as_it_lies_with_the_configurations_of_its_card(tmp_path: Path) -> None:
    repository(tmp_path / "plain", {"train": SPLIT, "test": SPLIT})
    assert_seeds(config(tmp_path / "plain"), 0, 1, 2, 3, 4, 5, split="test")
    assert open_labels(config(tmp_path / "plain"), "train").tolist() == [1, 0, 1, 0, 1, 0]
    card = "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/test*"
    write(tmp_path / "plain/README.md", f"---\n{card}\n---\n".encode())
    with pytest.raises(NoSplitError):
        open_source(config(tmp_path / "plain"), "test")


def test_images_in_files_of_their_own(tmp_path: Path) -> None:
    """Images in files, as ``imagefolder`` loads them; the fingerprint detects a changed file."""
    names = [f"train/{kind}/{row}.png" for kind in ("a", "b") for row in range(3)]
    tree(tmp_path / "tree", names)
    data = config(tmp_path / "tree")
    source = open_source(data)
    assert len(source.read(source.ids)) == 6
    assert open_labels(data, "train").tolist() == [0, 0, 0, 1, 1, 1]
    before = source.fingerprint
    write(tmp_path / "tree" / names[3], BYTES[5])
    assert open_source(data).fingerprint != before
    (tmp_path / "tree" / names[3]).unlink()
    with pytest.raises(CorruptImage, match="No such file"):
        source.read(np.array([3]))


def test_a_name_on_the_hub_is_loaded_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Check only the call of the library, because the Hub cannot be reached in tests."""
    asked, whole = list[Any](), made({"img": BYTES, "label": [0] * 6}, {"img": datasets.Image()})

    def load_dataset(*words: Any) -> Any:
        asked.append(words)
        return datasets.DatasetDict({"train": whole})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    for root in ("cifar10", "uoft-cs/cifar10", "uoft-cs/cifar10/plain_text"):
        data = from_tree({"data": {"source": "hf", "root": root}}, [], "it", whole=False).data
        assert data.root == f"hf://{root}"
        assert len(open_source(data)) == len(open_source(config(root))) == 6
    assert asked[::2] == [
        ("cifar10", None),
        ("uoft-cs/cifar10", None),
        ("uoft-cs/cifar10", "plain_text"),
    ]
    saved(tmp_path / "cifar10", {"train": SPLIT})
    data = from_tree({"data": {"source": "hf", "root": "cifar10"}}, [], "it", whole=False).data
    assert data.root == str(tmp_path / "cifar10"), "a folder comes first"


def test_what_cannot_be_opened_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"is not a folder; set it to one of save_to_disk, or to"):
        open_source(config("/nowhere/at/all"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty cannot be opened by datasets"):
        open_source(config(tmp_path / "empty"))

    def load_dataset(*words: Any) -> Any:
        raise ConnectionError("Couldn't reach 'no/such' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        DataError, match=r"no/such.* cannot be opened .*there is no such folder her"
    ):
        open_source(config("no/such"))
    monkeypatch.setattr(hf, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs datasets, which is not installed: pip install"):
        open_source(config(tmp_path))


def test_any_column_is_known_of_the_images(tmp_path: Path) -> None:
    whole = made({"img": BYTES, "site": ["a", None, "b"] * 2, "n": [*range(6)]}, {})
    whole.save_to_disk(tmp_path)
    source = open_source(config(tmp_path, image_column="img", limit=4))
    assert source.column("site").tolist() == ["a", "", "b", "a"]
    assert source.column("n").tolist() == ["0", "1", "2", "3"] and source.column("label") is None
    with pytest.raises(DataError, match=r"column img of .* holds"):
        source.column("img")


def test_a_test_split_without_rows_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub may have a split without rows; ``load_from_disk`` cannot open one."""
    whole = made({"image": BYTES, "label": [0, 1] * 3}, {})
    splits = {"train": whole, "test": whole.select([])}
    monkeypatch.setattr(hf, "_splits", lambda data: splits)
    with pytest.raises(NoSplitError, match=r"the test split of .* has no rows"):
        open_source(config("hub"), "test")
    splits["validation"] = whole
    assert len(open_source(config("hub"), "test")) == 6
