"""Damaged, changed or malicious shards give valid data or one typed error."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data import Source, open_source
from coopt_fl.data.shards import Shards, open_shards, publish
from coopt_fl.data.shards.manifest import MOST_BYTES, Manifest, ShardFile, parse
from coopt_fl.data.shards.unit import SCHEMA, decode_unit, encode_unit
from tests.unit.data.make import layout

SUM = "0" * 64
MANIFEST = Manifest(
    name="digits",
    fingerprint=SUM,
    rows=100,
    image_size=(8, 8),
    block_rows=40,
    audit_fraction=0.05,
    ids_sha256=SUM,
    files={
        **{f"blocks/000000{number}.parquet": ShardFile(SUM, 1000, 42) for number in range(3)},
        "shared.parquet": ShardFile(SUM, 500, 10),
    },
)
IDS = np.array([2, 3, 5, 8, 13, 21, 34], np.int64)
IMAGES = [bytes([number]) * (20 * number) for number in range(7)]
FILE = encode_unit(IDS, IMAGES)


@pytest.fixture
def digits() -> Source:
    return open_source(DataConfig(source="digits", limit=300))


@pytest.fixture
def shards(digits: Source, tmp_path: Path) -> Shards:
    publish(str(tmp_path / "shards"), digits, layout(digits), "raise", lambda done, total: None)
    return open_shards(str(tmp_path / "shards"))


def claiming(shards: Shards, path: str, content: bytes) -> Shards:
    """Write ``content`` to ``path``, and update its checksum in the manifest."""
    (Path(shards.url) / path).write_bytes(content)
    file = replace(
        shards.manifest.files[path],
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
    )
    manifest = replace(shards.manifest, files={**shards.manifest.files, path: file})
    (Path(shards.url) / "manifest.json").write_bytes(manifest.encode())
    return open_shards(shards.url)


def changed(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda whole: changed(whole, 3000), r"sha256 differs\); delete it, let the platform run"),
        (lambda whole: whole[:-1], r"sha256 differs\)"),
        (lambda whole: whole + b"x", r"has \d+ bytes where at most \d+ are expected"),
        (lambda whole: b"", r"sha256 differs\)"),
    ],
    ids=["changed", "truncated", "longer", "empty"],
)
def test_a_damaged_file_is_named_and_not_kept(
    damage: Any, says: str, shards: Shards, digits: Source, tmp_path: Path, own_cache: Path
) -> None:
    file = tmp_path / "shards" / "blocks" / "0000001.parquet"
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    unit = layout(digits).units[1]
    with pytest.raises(DataError, match=rf"/shards/blocks/0000001\.parquet .*{says}"):
        shards.source([1], shared=False).read(unit)
    assert list(own_cache.glob("shards/*/blocks/*.parquet")) == []
    file.write_bytes(whole)
    assert len(shards.source([1], shared=False).read(unit)) == 72


def test_a_missing_file_is_named(shards: Shards, digits: Source, tmp_path: Path) -> None:
    (tmp_path / "shards" / "shared.parquet").unlink()
    with pytest.raises(DataError, match=r"there is no .*/shards/shared\.parquet"):
        shards.source([], shared=True).read(layout(digits).shared)


def test_no_manifest_means_not_finished(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no finished shards at .*publish-shards` to its end"):
        open_shards(str(tmp_path))


def test_the_manifest_of_another_source_is_told_by_its_fingerprint(shards: Shards) -> None:
    other = open_source(DataConfig(source="digits", limit=299))
    assert shards.fingerprint != other.fingerprint
    assert shards.source([0], shared=False).fingerprint == shards.fingerprint


def test_a_large_manifest_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(DataError, match=f"at most {MOST_BYTES} are expected"):
        open_shards(str(tmp_path))


WRONG: dict[str, tuple[tuple[str, ...], Any]] = {
    "format": (("format",), 2),
    "complete": (("complete",), False),
    "complete as a number": (("complete",), 1),
    "name": (("name",), "../../etc"),
    "fingerprint": (("fingerprint",), "0" * 63),
    "rows": (("rows",), 0),
    "more rows than files": (("rows",), 130),
    "fewer rows than in a file": (("rows",), 41),
    "huge": (("rows",), 1 << 62),
    "no block_rows": (("block_rows",), 0),
    "block_rows": (("block_rows",), 10),
    "fraction": (("audit_fraction",), -0.1),
    "size": (("image_size",), [8]),
    "size of nothing": (("image_size",), [0, 8]),
    "one file less": (("files",), {"shared.parquet": {"sha256": SUM, "bytes": 1, "rows": 1}}),
    "entry with more": (
        ("files", "shared.parquet"),
        {"sha256": SUM, "bytes": 1, "rows": 1, "path": "x"},
    ),
    "file outside": (("files", "../x"), {"sha256": SUM, "bytes": 1, "rows": 1}),
    "sum": (("files", "shared.parquet", "sha256"), SUM.upper() + "g"),
    "bytes": (("files", "shared.parquet", "bytes"), 1 << 40),
    "no rows": (("files", "shared.parquet", "rows"), 0),
    "more rows than the source": (("files", "blocks/0000000.parquet", "rows"), 101),
    "too few rows in all": (("files", "blocks/0000000.parquet", "rows"), 1),
    "more": (("seed",), 0),
}


def with_value(where: tuple[str, ...], value: Any) -> bytes:
    tree = json.loads(MANIFEST.encode())
    node = tree
    for key in where[:-1]:
        node = node[key]
    node[where[-1]] = value
    return json.dumps(tree, indent=1).encode() + b"\n"


@pytest.mark.parametrize("what", list(WRONG))
def test_a_malformed_manifest_is_refused(what: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(with_value(*WRONG[what]))
    with pytest.raises(DataError, match=r"/manifest\.json is not a manifest of shards \(.*publish"):
        open_shards(str(tmp_path))


def test_the_manifest_itself_is_accepted() -> None:
    """This shows that the test above fails because of the change, not because of the manifest."""
    assert parse(MANIFEST.encode()) == MANIFEST
    assert parse(with_value(("format",), 1)) == MANIFEST


def test_without_a_key_or_with_one_twice_it_is_refused() -> None:
    content = MANIFEST.encode()
    for key in json.loads(content):
        tree = json.loads(content)
        del tree[key]
        with pytest.raises(ValueError, match="keys differ"):
            parse(json.dumps(tree, indent=1).encode() + b"\n")
    with pytest.raises(ValueError, match="not as it was written"):
        parse(content.replace(b'"rows": 100,', b'"rows": 99,\n "rows": 100,'))


def parquet(table: pa.Table, **more: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **({"compression": "none", "use_dictionary": False} | more))
    return out.getvalue()


def table(ids: Any = IDS, images: Any = tuple(IMAGES), schema: pa.Schema = SCHEMA) -> pa.Table:
    return pa.table([pa.array(ids), pa.array(images, pa.binary())], schema=schema)


NULLABLE = pa.schema([("id", pa.int64()), ("image", pa.binary())])
TEXT = pa.schema([pa.field("id", pa.int64(), False), pa.field("image", pa.string(), False)])
FOREIGN = {
    "nothing": (b"", "."),
    "text": (b"PAR1 and so on PAR1", "."),
    "other columns": (parquet(table().rename_columns(["id", "picture"])), "columns.*picture"),
    "other types": (parquet(table().cast(TEXT)), "columns.*string"),
    "nulls": (parquet(table(images=[None, *IMAGES[1:]], schema=NULLABLE)), "columns"),
    "one row less": (parquet(table().slice(1)), "6 rows, expected 7"),
    "twice an id": (parquet(table(ids=[2, 3, 3, 8, 13, 21, 34])), "do not ascend"),
    "disorder": (parquet(table(ids=IDS[::-1].copy())), "do not ascend"),
    "compressed": (
        parquet(table(images=[bytes(1 << 20)] * 7), compression="zstd"),
        "more bytes than it has",
    ),
}


@pytest.mark.parametrize("what", list(FOREIGN))
def test_a_foreign_file_is_refused(what: str) -> None:
    content, says = FOREIGN[what]
    with pytest.raises(ValueError, match=says):
        decode_unit(content, 7)


def test_a_small_file_that_grows_in_memory_is_refused() -> None:
    """It has a dictionary with one image and a million rows that refer to it: 1 TB in memory."""
    rows = 1 << 20
    image = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), [bytes(1 << 20)])
    fields = [pa.field("id", pa.int64(), False), pa.field("image", image.type, False)]
    bomb = pa.table([pa.array(range(rows)), image], schema=pa.schema(fields))
    content = parquet(bomb, use_dictionary=["image"], store_schema=False)
    assert len(content) < 20 << 20
    with pytest.raises(ValueError, match="it holds more bytes than it has"):
        decode_unit(content, rows)


@settings(max_examples=500)
@given(st.data())
def test_a_damaged_unit_is_valid_or_refused(data: st.DataObject) -> None:
    """Damage is mostly near the end, where Parquet has its metadata."""
    content = bytearray(FILE)
    for _ in range(data.draw(st.integers(1, 3))):
        at = len(content) - 1 - data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    start, end = data.draw(st.sampled_from([(0, None), (0, -1), (1, None), (0, -8)]))
    try:
        unit = decode_unit(bytes(content[start:end]), 7)
    except ValueError:
        return
    assert len(unit.ids) == 7 and (np.diff(unit.ids) > 0).all()
    assert sum(len(unit.image(row)) for row in range(7)) <= len(content)


def test_whatever_a_wrong_platform_vouches_for_is_a_typed_error(
    shards: Shards, digits: Source
) -> None:
    path = "blocks/0000002.parquet"
    unit = layout(digits).units[2]
    whole = (Path(shards.url) / path).read_bytes()
    for content in (b"rubbish", FILE, changed(whole, len(whole) - 100), whole[: len(whole) // 2]):
        source = claiming(shards, path, content).source([2], shared=False)
        with pytest.raises(DataError, match=r"0000002\.parquet is not a file of shards \(.*delete"):
            source.read(unit)
