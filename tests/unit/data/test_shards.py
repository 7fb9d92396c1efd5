"""Published shards: what is written, what is read back, and what is downloaded for it."""

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from coopt_fl.config.schema import DataConfig
from coopt_fl.core import remote
from coopt_fl.core.errors import DataError, OutputError
from coopt_fl.data import Source, batches, open_source
from coopt_fl.data.shards import Shards, open_shards, publish
from coopt_fl.data.shards import fetch as reading
from coopt_fl.data.shards.unit import Unit
from coopt_fl.data.source import CorruptImage
from coopt_fl.priors import Prior, load_prior
from coopt_fl.targets import represent
from tests.unit.data import make
from tests.unit.data.make import layout

DIGITS = DataConfig(source="digits", limit=300)
FILES = {f"blocks/000000{number}.parquet" for number in range(5)} | {"shared.parquet"}


@pytest.fixture
def digits() -> Source:
    return open_source(DIGITS)


@pytest.fixture
def shards(digits: Source, tmp_path: Path) -> Shards:
    """The digits in 5 blocks of 60 and 20% audit rows, at ``tmp_path / "shards"``."""
    return published(tmp_path / "shards", digits)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that records the names of downloaded files."""
    names: list[str] = []
    fetch = remote.fetch

    def counted(url: str, most_bytes: int) -> bytes:
        names.append(url.rpartition("shards/")[2])
        return fetch(url, most_bytes)

    monkeypatch.setattr(remote, "fetch", counted)
    return names


def test_a_prior_sees_the_same_of_shards_as_of_an_array(
    digits: Source, shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It resizes both on the same device; otherwise bits would differ."""
    seen, features = [], Prior.features

    def watched(prior: Prior, images: torch.Tensor, precision: str) -> torch.Tensor:
        seen.append(images.shape)
        return features(prior, images, precision)

    monkeypatch.setattr(Prior, "features", watched)
    prior = load_prior("random:tf_efficientnet_lite0?size=32", torch.device("cpu"))
    ids = layout(digits).shared[:4]
    made = [
        represent(prior, source, ids, batch_size=4, precision="float32", on_error="raise")
        for source in (digits, shards.source([], shared=True))
    ]
    assert seen == [(4, 3, 8, 8)] * 2
    assert np.array_equal(made[0].values, made[1].values)


def published(url: Path | str, of: Source, seed: int = 0, on_error: str = "raise") -> Shards:
    publish(str(url), of, layout(of, seed), on_error, lambda done, total: None)
    return open_shards(str(url))


def assert_same(read: Source, of: Source, ids: np.ndarray) -> None:
    for ours, theirs in zip(read.read(ids), of.read(ids), strict=True):
        assert torch.equal(ours, theirs)


def test_every_image_is_read_back_and_the_source_looks_the_same(
    shards: Shards, digits: Source
) -> None:
    found = shards.source(range(5), shared=True)
    assert_same(found, digits, digits.ids)
    assert (found.name, found.fingerprint) == ("digits", digits.fingerprint)
    assert found.image_size == digits.image_size == (8, 8)
    assert np.array_equal(found.ids, digits.ids)
    assert (shards.fingerprint, shards.manifest.rows) == (digits.fingerprint, 300)


def test_files_hold_units_and_nothing_else(shards: Shards, digits: Source, tmp_path: Path) -> None:
    asked = layout(digits)
    assert [len(unit) for unit in asked.units] == [60 + 12] * 5
    for path, ids in asked.files():
        table = pq.read_table(tmp_path / "shards" / path)
        assert table.column_names == ["id", "image"]  # no labels, and nothing that marks audit rows
        assert table.column("id").to_pylist() == ids.tolist()
    there = {str(file.relative_to(tmp_path / "shards")) for file in tmp_path.rglob("shards/**/*.*")}
    assert there == FILES | {"manifest.json"}


def test_the_manifest_describes_every_file_and_does_not_tell_the_seed(
    shards: Shards, digits: Source, tmp_path: Path
) -> None:
    content = (tmp_path / "shards" / "manifest.json").read_bytes()
    found = json.loads(content)
    assert hashlib.sha256(content).hexdigest() == shards.manifest_sha256
    assert set(found) == {
        "format", "name", "fingerprint", "rows", "image_size", "block_rows", "audit_fraction",
        "ids_sha256", "files", "complete",
    }  # fmt: skip
    assert (found["block_rows"], found["audit_fraction"], found["complete"]) == (60, 0.2, True)
    assert set(found["files"]) == FILES
    for path, file in found["files"].items():
        stored = (tmp_path / "shards" / path).read_bytes()
        assert file["sha256"] == hashlib.sha256(stored).hexdigest()
        assert file["bytes"] == len(stored)
        assert file["rows"] == (30 if path == "shared.parquet" else 72)
    assert found["ids_sha256"] == layout(digits).digest() != layout(digits, seed=1).digest()


@pytest.mark.parametrize("kind", ["parquet", "imagefolder"])
def test_encoded_images_stay_as_they_are(kind: str, tmp_path: Path) -> None:
    """This includes images that cannot be decoded, because participants have to find these."""
    images = [make.encode(make.pixels(k, 4 + k % 3), "JPEG" if k % 2 else "PNG") for k in range(40)]
    images[7] = b"no image"
    if kind == "parquet":
        make.parquet(tmp_path / "in" / "train.parquet", images)
    else:
        for number, image in enumerate(images):
            make.write(tmp_path / "in" / "train" / "a" / f"{number:02}.png", image)
    of = open_source(DataConfig(source=kind, root=str(tmp_path / "in")))
    found = published(tmp_path / "shards", of).source([0], shared=False)
    table = pq.read_table(tmp_path / "shards" / "blocks" / "0000000.parquet")
    for id, image in zip(*table.to_pydict().values(), strict=True):
        name = of.where(id)
        number = int(name.split("row ")[1] if kind == "parquet" else Path(name).stem)
        assert image == images[number]
        if number != 7:
            assert_same(found, of, np.array([id]))
        else:
            with pytest.raises(CorruptImage, match=r"/0000000\.parquet row \d+ \(id") as caught:
                found.read(np.array([id]))
            assert caught.value.id == id
    assert found.image_size is None


def test_a_file_that_cannot_be_read_stops_or_is_skipped_later(tmp_path: Path) -> None:
    names = [f"train/a/{number}.png" for number in range(40)]
    make.tree(tmp_path / "in", names)
    of = open_source(DataConfig(source="imagefolder", root=str(tmp_path / "in")))
    assert of.fingerprint
    (tmp_path / "in" / "train" / of.where(3)).unlink()
    with pytest.raises(CorruptImage, match="No such file"):
        published(tmp_path / "shards", of)
    found = published(tmp_path / "shards", of, on_error="skip").source([0], shared=False)
    with pytest.raises(CorruptImage, match="it holds no bytes"):
        found.read(np.array([3]))


def test_only_the_files_asked_for_are_downloaded_and_only_once(
    shards: Shards, digits: Source, fetched: list[str]
) -> None:
    units = layout(digits).units
    found = shards.source([3, 1], shared=False)
    assert fetched == []
    for part in np.array_split(units[3], 4):
        assert_same(found, digits, part)
    assert fetched == ["blocks/0000003.parquet"]
    assert_same(found, digits, units[1])
    assert_same(shards.source([3, 1], shared=False), digits, units[1])
    assert fetched == ["blocks/0000003.parquet", "blocks/0000001.parquet"]
    assert_same(shards.source([], shared=True), digits, layout(digits).shared)
    assert fetched[2:] == ["shared.parquet"]


def test_ids_of_other_files_are_refused(shards: Shards, digits: Source) -> None:
    units = layout(digits).units
    found = shards.source([2], shared=False)
    other = np.setdiff1d(digits.ids, units[2])[:1]
    with pytest.raises(DataError, match=rf"id {other[0]} is not in blocks/0000002\.parquet of the"):
        found.read(other)
    with pytest.raises(DataError, match="is not in any file"):
        shards.source([], shared=False).read(other)
    for number in (5, -1):
        with pytest.raises(DataError, match=rf"no block {number} in .* which have 5"):
            shards.source([0, number], shared=False)


def test_batches_are_those_of_the_images_themselves(shards: Shards, digits: Source) -> None:
    units = layout(digits).units[:2]
    ours = list(batches(shards.source([0, 1], shared=False), units, 50))
    theirs = list(batches(digits, units, 50))
    for mine, other in zip(ours, theirs, strict=True):
        assert np.array_equal(mine.ids, other.ids)
        assert torch.equal(mine.images, other.images)


def test_few_files_are_open_and_two_do_not_take_turns(
    shards: Shards, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    decode: Callable[[bytes, int], Unit] = reading.decode_unit
    monkeypatch.setattr(reading, "KEPT_OPEN_BYTES", 0)
    monkeypatch.setattr(
        reading, "decode_unit", lambda *given: (opened.append("x"), decode(*given))[1]
    )
    units = layout(digits).units
    found = shards.source(range(5), shared=False)
    for _ in range(3):
        assert_same(found, digits, np.sort(np.concatenate(units[:2])))
    assert len(opened) == 2
    opened.clear()
    for _ in range(3):
        for unit in units:
            assert_same(found, digits, unit)
    # Once for each unit, and a few times for its first id, which may be in others, too: not for
    # each of the 12 ids of a unit that are.
    assert len(opened) < 2 * 3 * len(units)
    assert len(found._open) == 2


def test_images_in_memory_do_not_travel_to_worker_processes(shards: Shards, digits: Source) -> None:
    found = shards.source([0], shared=False)
    unit = layout(digits).units[0]
    found.read(unit)
    sent = pickle.dumps(found)
    assert len(sent) < shards.manifest.files["blocks/0000000.parquet"].bytes / 2
    assert_same(pickle.loads(sent), digits, unit)


def test_what_was_damaged_in_the_cache_is_fetched_again(
    shards: Shards, digits: Source, own_cache: Path, fetched: list[str]
) -> None:
    unit = layout(digits).units[0]
    assert_same(shards.source([0], shared=False), digits, unit)
    (kept,) = own_cache.glob(f"shards/{shards.manifest_sha256}/blocks/*.parquet")
    whole = kept.read_bytes()
    for damaged in (whole[:-9], whole[:2000] + b"?" + whole[2001:], b""):
        kept.write_bytes(damaged)
        make.write(kept.with_name(f".{kept.name}.tmp"), b"of a killed process")
        assert_same(shards.source([0], shared=False), digits, unit)
        assert kept.read_bytes() == whole
        assert list(kept.parent.glob(".*.tmp")) == []
    assert len(fetched) == 4


def test_files_make_room_for_each_other_and_share_a_lock(
    shards: Shards,
    digits: Source,
    own_cache: Path,
    fetched: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A participant can read a part of the data that is larger than its disk."""
    monkeypatch.setenv("COOPT_CACHE_GB", "0")
    for number in (0, 1, 2, 0):
        unit = layout(digits).units[number]
        assert_same(shards.source([number], shared=False), digits, unit)
        (kept,) = own_cache.glob(f"shards/{shards.manifest_sha256}/blocks/[!.]*")
        assert kept.name == f"000000{number}.parquet"
    assert fetched == [f"blocks/000000{number}.parquet" for number in (0, 1, 2, 0)]
    assert list((own_cache / "shards").rglob("*.lock")) == [kept.parent / ".lock"]


@pytest.mark.whole
def test_shards_in_s3(bucket: str, digits: Source) -> None:
    url = remote.join(bucket, "some", "shards")
    found = published(url, digits)
    assert_same(found.source(range(5), shared=True), digits, digits.ids)
    with pytest.raises(OutputError, match="holds shards of another source, seed"):
        published(url, digits, seed=1)
