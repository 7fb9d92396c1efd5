"""Every packaging gives the same images and labels."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coopt_fl.config.load import from_tree
from coopt_fl.config.schema import DataConfig, SplitConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data import batches, open_labels, open_source, split_labels
from coopt_fl.data.shards import open_shards, publish
from coopt_fl.data.source import CorruptImage, NoSplitError, Source, copy_streams
from tests.unit.data.make import as_tensor, encode, layout, pixels
from tests.unit.data.pack import PACKED, Split, Splits

COUNT = 7
IMAGES = [pixels(seed, 4 + seed % 3, 5 + seed % 2) for seed in range(COUNT + 4)]
BYTES = [encode(image) for image in IMAGES]
NAMES = ["dog", "cat", "eel"]
TRAIN: Split = (BYTES[:COUNT], [NAMES[row % 3] for row in range(COUNT)])
TEST: Split = (BYTES[COUNT:], ["eel", "dog", "zebra", "cat"])

Packed = Callable[..., DataConfig]


@pytest.fixture(params=PACKED)
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Packed:
    """Packs splits, and makes the copy of sources that can only be streamed."""

    def make(splits: Splits, name: str = "packed", **more: object) -> DataConfig:
        (tmp_path / name).mkdir()
        data = replace(PACKED[request.param](tmp_path / name, splits), **more)
        copy_streams(data, lambda split, done: None)
        return data

    return make


def assert_read(source: Source, first: int, rows: int) -> None:
    read = source.read(source.ids)
    assert len(read) == rows
    for image, planted in zip(read, IMAGES[first : first + rows], strict=True):
        assert torch.equal(image, as_tensor(planted))


def test_images_and_labels_of_both_splits(packed: Packed) -> None:
    data = packed({"train": TRAIN, "test": TEST})
    assert_read(open_source(data), 0, COUNT)
    assert_read(open_source(data, "test"), COUNT, 4)
    assert open_labels(data, "train").tolist() == [1, 0, 2, 1, 0, 2, 1]
    assert open_labels(data, "test").tolist() == [2, 1, -1, 0]
    assert open_source(data).notes == ()
    source = open_source(data)
    (image,) = source.read(np.array([5]))
    assert torch.equal(image, as_tensor(IMAGES[5]))


def test_a_limit_keeps_the_first_rows(packed: Packed) -> None:
    data = packed({"train": TRAIN, "test": TEST}, limit=3)
    assert_read(open_source(data), 0, 3)
    assert_read(open_source(data, "test"), COUNT, 3)
    assert open_labels(data, "test").tolist() == [2, 1, -1]


def test_validation_is_the_test_split_where_there_is_no_other(packed: Packed) -> None:
    data = packed({"train": TRAIN, "validation": TEST})
    assert_read(open_source(data, "test"), COUNT, 4)


def test_hidden_labels_give_way_to_validation(packed: Packed) -> None:
    numbered = (BYTES[:COUNT], [str(row % 3) for row in range(COUNT)])
    hidden, shown = (BYTES[COUNT:-1], ["-1"] * 3), (BYTES[COUNT:], ["0", "2", "1", "1"])
    data = packed({"train": numbered, "test": hidden, "validation": shown})
    if [*Path(data.root).glob("*.tar.gz")]:
        pytest.skip("whether a stream has labels is not known before it is copied")
    assert len(open_source(data, "test")) == 4
    assert open_labels(data, "test").tolist() == [0, 2, 1, 1]


def test_splits_may_have_any_name(packed: Packed) -> None:
    names = SplitConfig(train="unlabeled", test="held_out")
    data = packed({"unlabeled": TRAIN, "held_out": TEST}, split=names)
    assert_read(open_source(data), 0, COUNT)
    assert_read(open_source(data, "test"), COUNT, 4)


def test_nothing_that_is_trained_on_is_judged_on(packed: Packed) -> None:
    data = packed({"train": TRAIN, "test": TEST}, split=SplitConfig(train="test"))
    assert_read(open_source(data), COUNT, 4)
    with pytest.raises(NoSplitError):
        open_source(data, "test")
    assert split_labels(data, "test") is None


def test_a_split_that_is_missing_is_an_error_that_names_it(packed: Packed) -> None:
    with pytest.raises(DataError, match="absent"):
        open_source(packed({"train": TRAIN}, split=SplitConfig(train="absent")))


def test_one_corrupt_image_is_named_or_skipped(packed: Packed) -> None:
    broken = ([*BYTES[:2], b"no image", *BYTES[3:COUNT]], TRAIN[1])
    data = packed({"train": broken})
    source = open_source(data)
    with pytest.raises(CorruptImage, match=r"\(id 2\) is corrupt: .*data\.on_error=skip"):
        source.read(source.ids)
    (batch,) = batches(source, [source.ids], COUNT, "skip")
    assert batch.skipped == (2,) and len(batch.ids) == COUNT - 1
    assert len(source.fingerprint) == 64


def test_images_are_turned_and_have_a_limit(packed: Packed) -> None:
    tag = Image.Exif()
    tag[0x112] = 6
    photo = encode(pixels(0, 4, 7), exif=tag)
    data = packed({"train": ([photo, *BYTES[1:3]], TRAIN[1][:3])}, max_pixels=28)
    (image,) = open_source(data).read(np.array([0]))
    assert torch.equal(image, as_tensor(np.rot90(pixels(0, 4, 7), -1)))
    data.max_pixels = 27
    with pytest.raises(CorruptImage, match=r"data\.max_pixels=27"):
        open_source(data).read(np.array([0]))


def test_the_fingerprint_is_that_of_the_content(packed: Packed) -> None:
    splits = {"train": TRAIN, "test": TEST}
    one, other = (open_source(packed(splits, name)) for name in ("one", "other"))
    assert one.fingerprint == other.fingerprint
    swapped = ([BYTES[1], BYTES[0], *BYTES[2:COUNT]], TRAIN[1])
    assert open_source(packed({"train": swapped}, "swapped")).fingerprint != one.fingerprint
    shorter = open_source(packed(splits, "shorter", limit=3))
    assert shorter.fingerprint != one.fingerprint


def test_shards_for_participants_are_published(packed: Packed, tmp_path: Path) -> None:
    many = (BYTES[:COUNT] * 10, TRAIN[1] * 10)
    source = open_source(packed({"train": many}))
    publish(str(tmp_path / "out"), source, layout(source), "raise", lambda done, total: None)
    published = open_shards(str(tmp_path / "out"))
    assert published.fingerprint == source.fingerprint
    ids = layout(source).units[0]
    for one, other in zip(published.source([0], False).read(ids), source.read(ids), strict=True):
        assert torch.equal(one, other)


def test_it_can_be_sent_to_another_process(packed: Packed) -> None:
    source = open_source(packed({"train": TRAIN}))
    source.read(source.ids[:1])  # which may open files
    again = pickle.loads(pickle.dumps(source))
    assert_read(again, 0, COUNT)
    assert again.fingerprint == source.fingerprint


def test_a_configuration_can_be_made_of_it(packed: Packed) -> None:
    """The configuration has an absolute path, or the URL unchanged."""
    data = packed({"train": TRAIN})
    tree = {"data": {"source": data.source, "root": data.root}}
    assert from_tree(tree, [], "it", whole=False).data == data
