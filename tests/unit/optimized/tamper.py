"""Tampering with a published dataset, and recomputing the checksums above."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coopt_fl.optimized.block import dataset_digest
from coopt_fl.optimized.verify import verify
from tests.unit.optimized.make import edit, sha256
from tests.unit.optimized.test_block import defined

PART = "data/part-00001.parquet"


def problems(dataset: Path) -> str:
    return "\n".join(verify(dataset)[1])


def rewrite(dataset: Path, change: Callable[[pa.Table], pa.Table], group: int = 1) -> None:
    """Change one row group of PART, with blocks 3 to 5, and recompute the file's checksum."""
    path = dataset / PART
    with pq.ParquetFile(path) as file:
        groups = [file.read_row_group(k) for k in range(file.num_row_groups)]
    groups[group] = change(groups[group])
    with pq.ParquetWriter(path, groups[group].schema) as writer:
        for table in groups:
            writer.write_table(table.cast(groups[group].schema))
    edit(dataset, lambda p: p["files"][1].update(sha256=sha256(path)))


def mend(dataset: Path, *, total: bool = True) -> None:
    """Recompute the digest of each block of PART from the file, and the dataset's."""
    value = json.loads((dataset / "provenance.json").read_bytes())
    with pq.ParquetFile(dataset / PART) as file:
        for k in range(file.num_row_groups):
            rows = file.read_row_group(k).to_pydict()
            digest = defined(rows["id"], rows["target"], rows["participant"])
            value["block_digests"][3 + k] = digest
    if total:
        value["digest"] = dataset_digest(value["block_digests"])
    (dataset / "provenance.json").write_text(json.dumps(value))


def column(table: pa.Table, name: str, change: Callable[[list[Any]], list[Any]]) -> pa.Table:
    place = table.schema.names.index(name)
    field = table.schema.field(place)
    return table.set_column(place, field, pa.array(change(table[name].to_pylist()), field.type))
