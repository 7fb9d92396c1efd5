"""Participants read the column and the split that the platform reads."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import coopt_fl
from coopt_fl.config.load import from_tree
from coopt_fl.core.errors import OutputError
from coopt_fl.data import open_source
from tests.flower.grid import run_platform
from tests.unit.command import TINY
from tests.unit.data.make import encode, pixels


def test_a_run_on_a_chosen_column_of_a_chosen_split(tmp_path: Path) -> None:
    left, right = ([encode(pixels(start + k)) for k in range(60)] for start in (0, 100))
    for name, first in (("extra", left), ("train", right)):
        pq.write_table(pa.table({"a": first, "b": right}), tmp_path / f"{name}.parquet")
    where = ["data.source=parquet", f"data.root={tmp_path}", "data.limit=null"]
    chosen = [*where, "data.image_column=a", "data.split.train=extra"]
    config = from_tree(TINY, chosen, "tiny")
    run_platform(config, tmp_path / "run")
    made = coopt_fl.load(tmp_path / "run").provenance
    assert made.source["fingerprint"] == open_source(config.data).fingerprint
    run_platform(config, tmp_path / "run")
    other = from_tree(TINY, [*chosen, "data.image_column=b"], "tiny")
    with pytest.raises(OutputError, match="data"):
        run_platform(other, tmp_path / "run")
