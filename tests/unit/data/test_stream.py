"""Images from a plug-in that can only be streamed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import ConfigError, DataError
from coopt_fl.data import Stream, from_dataset, open_labels, open_source
from coopt_fl.data.labels import unlabeled
from coopt_fl.data.source import NoSplitError, copy_streams
from tests.unit.data.make import as_tensor, encode, pixels

DATA = DataConfig(f"python:{__name__}:rows")
PASSES: list[str] = []
ROWS: dict[str, list[tuple[Any, Any]]] = {}


def rows(data: DataConfig, split: str) -> Stream | None:
    """A plug-in that is given by its name."""

    def read() -> Iterator[tuple[Any, Any]]:
        PASSES.append(split)
        yield from ROWS[split]

    return Stream(read, f"the {split} rows") if split in ROWS else None


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """File bytes, a Hugging Face dictionary, a PIL image, and a row without an image."""
    images = [
        encode(pixels(0)),
        {"bytes": encode(pixels(1)), "path": None},
        Image.fromarray(pixels(2)),
        {"bytes": None, "path": "gone.png"},
    ]
    train = [*zip(images, ["b", "a", "c", None], strict=True)]
    monkeypatch.setitem(ROWS, "train", train)
    monkeypatch.setitem(ROWS, "test", [(encode(pixels(4)), "c"), (encode(pixels(5)), "z")])
    monkeypatch.setattr(f"{__name__}.PASSES", [])


def copied(data: DataConfig = DATA) -> list[tuple[str, int]]:
    told = list[tuple[str, int]]()
    copy_streams(data, lambda split, done: told.append((split, done)))
    return told


def test_it_has_to_be_copied_first_and_is_then_read_in_any_order() -> None:
    with pytest.raises(
        DataError, match=r"the train rows can only be read .*publish-shards parquet"
    ):
        open_source(DATA)
    assert copied() == [*(("train", row) for row in range(1, 5)), ("test", 1), ("test", 2)]
    source = open_source(DATA)
    for row in (2, 0, 1):
        (image,) = source.read(source.ids[[row]])
        assert torch.equal(image, as_tensor(pixels(row)))
    with pytest.raises(DataError, match=r"image the train rows row 3 .* it holds no bytes"):
        source.read(source.ids[[3]])
    assert copied() == [], "there is a copy"
    assert PASSES == ["train", "test"]


def test_its_labels_are_numbered_by_those_of_train() -> None:
    copied()
    assert open_labels(DATA, "train").tolist() == [1, 0, 2, -1]
    assert open_labels(DATA, "test").tolist() == [2, -1]
    assert [said[:17] for said in unlabeled(DATA)] == ["1 of 4 train imag", "1 of 2 test image"]


def test_a_limit_and_a_missing_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ROWS, "test")
    data = DataConfig(DATA.source, limit=2)
    assert copied(data) == [("train", 1), ("train", 2)]
    assert len(open_source(data)) == 2
    with pytest.raises(NoSplitError):
        open_source(data, "test")
    with pytest.raises(DataError, match="can only be read"):
        open_source(DATA)


def test_what_is_no_image_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROWS, "train", [(encode(pixels(0)), 0), ("photo.png", 1)])
    with pytest.raises(DataError, match=r"the train rows row 1 is str; an image must be the bytes"):
        copied()
    monkeypatch.setitem(ROWS, "train", [])
    with pytest.raises(DataError, match="the train rows holds no images of the train split"):
        copied()


def test_a_streamed_dataset_of_hugging_face(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    columns = {"img": [encode(pixels(row)) for row in range(3)], "label": [2, 0, 1]}
    made = datasets.Dataset.from_dict(columns).cast_column("img", datasets.Image())
    made.to_parquet(tmp_path / "train.parquet")
    files = str(tmp_path / "train.parquet")
    streamed = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    with pytest.raises(ConfigError, match="IterableDataset can only be read from its beginning on"):
        from_dataset(streamed)
    plain = streamed.cast_column("img", datasets.Image(decode=False))
    monkeypatch.setitem(ROWS, "train", [(row["img"], row["label"]) for row in plain])
    copied()
    source = open_source(DATA)
    for row, image in enumerate(source.read(source.ids)):
        assert torch.equal(image, as_tensor(pixels(row)))
    assert open_labels(DATA, "train").tolist() == [2, 0, 1]
