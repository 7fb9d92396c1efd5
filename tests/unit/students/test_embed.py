"""``coopt embed``: the file's rows are the model's features of each image."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from coopt_fl import api, delivery
from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.data import open_labels, open_source
from coopt_fl.priors import load_prior
from coopt_fl.priors.prior import Prior
from coopt_fl.students import embed
from coopt_fl.students.checkpoint import LoadedStudent, load_student, save_student
from coopt_fl.students.images import resizing
from coopt_fl.students.models import build_student
from tests.unit.command import Coopt
from tests.unit.data.make import encode, parquet, pixels, tree


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return checkpoint_of(tmp_path)


def checkpoint_of(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "student" / "checkpoint.pt"
    meta = {"data": asdict(DataConfig())}
    save_student(path, LoadedStudent(build_student("convnet:4", 8, 0), resizing(8), meta))
    return path


def embeddings(table: pa.Table) -> np.ndarray:
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_are_ids_features_and_labels(checkpoint: Path, tmp_path: Path, split: str) -> None:
    run, out = checkpoint.parents[1], tmp_path / "e.parquet"
    made = api.embed(run, "digits", ["data.limit=70"], out=out, split=split, progress=None)
    table, data = pq.read_table(out), DataConfig(limit=70)
    source = open_source(data, split)
    assert pa.types.is_fixed_size_list(table.schema.field("embedding").type)
    assert table.schema.field("embedding").type.value_type == pa.float32()
    assert table["id"].to_pylist() == source.ids.tolist()
    assert table["image"].to_pylist() == [f"digits row {id}" for id in range(70)]
    assert table["label"].to_pylist() == open_labels(data, split).tolist()
    wanted = load_student(checkpoint).features(torch.stack(source.read(source.ids)))
    np.testing.assert_allclose(embeddings(table), wanted.numpy(), atol=1e-6)
    assert (made.rows, made.width, made.labeled, made.skipped) == (70, 16, True, 0)


def test_what_cannot_be_read_is_left_out_and_images_may_have_no_labels(tmp_path: Path) -> None:
    tree(tmp_path, [f"train/{k}.png" for k in range(5)])
    (tmp_path / "train" / "2.png").write_bytes(b"broken")
    given = [f"data.root={tmp_path}", "data.on_error=skip"]
    out = tmp_path / "e.parquet"
    made = api.embed("trivial:6", "imagefolder", given, out=out, progress=None)
    table = pq.read_table(out)
    source = open_source(DataConfig(source="imagefolder", root=str(tmp_path)))
    readable = [id for id in range(5) if not source.where(id).endswith("2.png")]
    assert (table["id"].to_pylist(), table.column_names) == (readable, ["id", "image", "embedding"])
    assert table["image"].to_pylist() == [source.where(id) for id in readable]
    assert (made.skipped, made.labeled) == (1, False)


@pytest.mark.parametrize("layout", ["whole", "splits", "parquet"])
def test_a_folder_is_a_source(tmp_path: Path, layout: str) -> None:
    """Images may be in the folder itself, or in that of its train split."""
    folder = tmp_path / "digits.photos"
    if layout == "parquet":
        parquet(folder / "train.parquet", [encode(pixels(0)), encode(pixels(1))])
        names = ["train.parquet row 0", "train.parquet row 1"]
    else:
        below = "train/" if layout == "splits" else ""
        tree(folder, [f"{below}cat/0.png", f"{below}dog/1.png"])
        names = ["cat/0.png", "dog/1.png"]
    out = tmp_path / "e.parquet"
    made = api.embed("trivial:6", str(folder), out=out, progress=None)
    assert sorted(pq.read_table(out)["image"].to_pylist()) == names
    assert (made.rows, made.labeled) == (2, layout != "parquet")


def test_the_name_of_a_source_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, ["digits/cat/0.png"])
    monkeypatch.chdir(tmp_path)
    made = api.embed("trivial:6", "digits", ["data.limit=3"], out="e.parquet", progress=None)
    assert (made.source, made.rows) == ("digits", 3)


def test_a_stopped_call_goes_on_after_the_last_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "ROWS", 10)
    monkeypatch.setattr(embed, "BATCH", 10)
    given, plain, seen = ["data.limit=45"], Prior.features, list[int]()
    api.embed("trivial:6", "digits", given, out=tmp_path / "whole.parquet", progress=None)

    def stopped(prior: Prior, images: torch.Tensor, precision: str) -> torch.Tensor:
        seen.append(len(images))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return plain(prior, images, precision)

    monkeypatch.setattr(Prior, "features", stopped)
    out = tmp_path / "e.parquet"
    with pytest.raises(KeyboardInterrupt):
        api.embed("trivial:6", "digits", given, out=out, progress=None)
    assert not out.exists()
    api.embed("trivial:6", "digits", given, out=out, progress=None)
    assert len(seen) == 3 + 3  # two of five blocks were there
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))
    assert not [*tmp_path.glob(".*")]
    api.embed("trivial:6", "digits", given, out=out, progress=None)
    assert len(seen) == 6  # it is finished


def test_blocks_of_another_model_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "ROWS", 10)
    out, given = tmp_path / "e.parquet", ["data.limit=20"]
    api.embed("trivial:6", "digits", given, out=out, progress=None)
    parts = tmp_path / ".e.parquet.parts"
    parts.mkdir()
    out.rename(parts / "00000000.parquet")
    api.embed("trivial:5", "digits", given, out=out, progress=None)
    source = open_source(DataConfig(limit=20))
    wanted = load_prior("trivial:5").features(torch.stack(source.read(source.ids)))
    np.testing.assert_allclose(embeddings(pq.read_table(out)), wanted.numpy(), atol=1e-6)


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "e.parquet"
    api.embed("trivial:6", "digits", ["data.limit=10"], out=out, progress=None)
    with pytest.raises(OutputError, match="is there already and holds something else"):
        api.embed("trivial:6", "digits", ["data.limit=11"], out=out, progress=None)
    with pytest.raises(ConfigError, match=r"must end with \.parquet"):
        api.embed("trivial:6", "digits", out=tmp_path / "e.csv", progress=None)
    with pytest.raises(ConfigError, match=r"leave out student\.epochs=2"):
        api.embed("trivial:6", "digits", ["student.epochs=2"], out=out, progress=None)


def test_what_changes_labels_or_what_is_skipped_is_something_else(tmp_path: Path) -> None:
    tree(tmp_path / "in", ["train/b/0.png", "test/b/1.png"])
    given, out = [f"data.root={tmp_path / 'in'}", "data.on_error=skip"], tmp_path / "e.parquet"
    api.embed("trivial:6", "imagefolder", given, out=out, split="test", progress=None)
    tree(tmp_path / "in", ["train/a/2.png"])  # so b is class 1
    for more in ([], ["data.max_pixels=1000"]):
        with pytest.raises(OutputError, match="holds something else"):
            api.embed(
                "trivial:6", "imagefolder", given + more, out=out, split="test", progress=None
            )
        out.unlink()
        api.embed("trivial:6", "imagefolder", given, out=out, split="test", progress=None)
    assert pq.read_table(out)["label"].to_pylist() == [1]


def test_a_name_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "e\udcff.parquet"
    for call in (
        lambda: api.embed("trivial:6", "digits", out=out, progress=None),
        lambda: delivery.pull(str(tmp_path), out=out, progress=None),
        lambda: api.export(checkpoint_of(tmp_path), to="onnx", out=out, progress=None),
    ):
        with pytest.raises(OutputError, match=r"--out=.*e\\xff\.parquet is no UTF-8"):
            call()


def test_the_command_says_what_it_wrote(coopt: Coopt) -> None:
    words = ("embed", "trivial:6", "digits", "data.limit=10", "--out", "e.parquet")
    code, out, err = coopt(*words)
    assert (code, "10 embeddings of 6 numbers by trivial:6" in out) == (0, True)
    assert "embed 1/1 block" in err
