"""Class names by source: a name's number is the label of its rows."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coopt_fl.config.schema import DataConfig
from coopt_fl.data import open_labels, open_source
from coopt_fl.data.class_names import class_names
from tests.unit.data.make import encode, parquet, pixels, tree, write

IMAGES = [encode(pixels(k)) for k in range(6)]
WORDS = ["otter", "cat", "", "otter", "emu", "cat"]
NAMED = {0: "cat", 1: "emu", 2: "otter"}


def names(data: DataConfig) -> dict[int, str]:
    source, labels = open_source(data), open_labels(data, "train")
    assert labels is not None
    rows = np.flatnonzero(labels >= 0)
    return class_names(data, source, source.ids[rows], labels[rows])


def test_folders(tmp_path: Path) -> None:
    tree(tmp_path, ["train/otter/0.png", "train/emu/1.png", "train/cat/a/2.png", "train/3.png"])
    assert names(DataConfig(source="imagefolder", root=str(tmp_path))) == NAMED


@pytest.mark.parametrize("limit", [None, 5])
def test_texts_in_parquet_and_in_lists(limit: int | None, tmp_path: Path) -> None:
    parquet(tmp_path / "parquet" / "train.parquet", IMAGES, animal=WORDS)
    data = DataConfig(source="parquet", root=str(tmp_path / "parquet"), limit=limit)
    data.label_column = "animal"
    assert names(data) == NAMED
    tree(tmp_path, [f"{k}.png" for k in range(6)])
    lines = [f"{k}.png,{word}" for k, word in enumerate(WORDS)]
    write(tmp_path / "list.csv", "\n".join(["path,label", *lines]).encode())
    assert (
        names(DataConfig(source="manifest", root=str(tmp_path / "list.csv"), limit=limit)) == NAMED
    )


def test_texts_in_tar_files(tmp_path: Path) -> None:
    samples = [{"png": one, "cls": word.encode()} for one, word in zip(IMAGES, WORDS, strict=True)]
    with tarfile.open(tmp_path / "train-0.tar", "w") as archive:
        for number, sample in enumerate(samples):
            for kind, content in sample.items():
                member = tarfile.TarInfo(f"{number:03}.{kind}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    assert names(DataConfig(source="webdataset", root=str(tmp_path))) == NAMED


@pytest.mark.parametrize("labels", [[0, 1, 1, 0, 3, 2], [0.0, 1.0, 1.0, None, 3.0, 2.0]])
def test_numbers_have_no_names(labels: list[Any], tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", IMAGES, label=labels)
    assert names(DataConfig(source="parquet", root=str(tmp_path))) == {}
    assert names(DataConfig(limit=50)) == {}  # scikit-learn's digits have no column at all


def test_class_labels_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = {"image": datasets.Image(), "breed": datasets.ClassLabel(names=["pug", "afghan"])}
    rows = {"image": [{"bytes": one, "path": None} for one in IMAGES], "breed": [1, 0, 1, 0, 1, 1]}
    made = datasets.Dataset.from_dict(rows, datasets.Features(kinds))
    made.save_to_disk(tmp_path / "saved")
    assert names(DataConfig(source="hf", root=str(tmp_path / "saved"))) == {0: "pug", 1: "afghan"}
    (tmp_path / "parquet").mkdir()
    made.to_parquet(tmp_path / "parquet" / "train.parquet")
    data = DataConfig(source="parquet", root=str(tmp_path / "parquet"))
    assert names(data) == {0: "pug", 1: "afghan"}


@pytest.mark.parametrize("told", [b"torn", b"{}", b'{"info": {"features": {"label": [1]}}}'])
def test_what_anybody_may_have_written_beside_a_table_is_no_name(
    told: bytes, tmp_path: Path
) -> None:
    table = pa.table({"image": IMAGES, "label": [0] * 6}).replace_schema_metadata(
        {b"huggingface": told}
    )
    pq.write_table(table, tmp_path / "train.parquet")
    assert names(DataConfig(source="parquet", root=str(tmp_path))) == {}
