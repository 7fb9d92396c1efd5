"""The published files give the same ids and targets in other tools."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.optimized.make import ROWS, SKIPPED, target

KEPT = [id for id in range(ROWS) if id not in SKIPPED]


def assert_planted(ids: NDArray[np.int64], targets: NDArray[np.generic]) -> None:
    order = np.argsort(ids)
    assert ids[order].tolist() == KEPT
    assert np.array_equal(targets[order], target(np.array(KEPT)))


@pytest.mark.parametrize("by", ["files", "card"])
def test_hugging_face(by: str, finished: Path, tmp_path: Path) -> None:
    """Load once by naming the files, once by the front matter of the card."""
    datasets = pytest.importorskip("datasets")
    folder, cache = finished / "dataset", str(tmp_path / "hf")
    if by == "files":
        files = str(folder / "data/*.parquet")
        loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=cache)
    else:
        loaded = datasets.load_dataset(str(folder), cache_dir=cache)
    table = loaded["train"].with_format("numpy")[:]
    assert set(table) == {"id", "target", "participant"}
    assert_planted(table["id"], np.stack(table["target"]))
    assert loaded["train"].features["target"].feature.dtype == "float16"


def test_pandas(finished: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(finished / "dataset/data")
    assert_planted(frame["id"].to_numpy(), np.stack(frame["target"].to_list()))
    assert set(frame["participant"]) == {0, 1}


def test_duckdb(finished: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    files = str(finished / "dataset/data/*.parquet")
    rows = duckdb.sql(f"SELECT id, target FROM '{files}' WHERE id >= 0").fetchall()
    assert_planted(np.array([id for id, _ in rows]), np.array([values for _, values in rows]))
    counts = duckdb.sql(f"SELECT participant, count(*) FROM '{files}' GROUP BY 1").fetchall()
    assert sum(count for _, count in counts) == len(KEPT)
