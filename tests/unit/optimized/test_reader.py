"""Reading a dataset: rows as planted, maps, pairs with images."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import coopt_fl
from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError, OutputError, VerificationError
from coopt_fl.data import open_source
from coopt_fl.optimized import read as reading
from coopt_fl.optimized.block import dataset_digest
from coopt_fl.optimized.read import OptimizedDataset
from tests.unit.optimized import make


def assert_planted(dataset: OptimizedDataset) -> None:
    kept = [id for id in range(make.ROWS) if id not in make.SKIPPED]
    assert sorted(dataset.ids.tolist()) == kept
    assert (dataset.ids.dtype, dataset.participants.dtype) == (np.int64, np.int16)
    assert dataset.targets.dtype == np.float16
    assert np.array_equal(dataset.targets, make.target(np.asarray(dataset.ids)))
    plan = make.make_plan()
    owner = {int(id): plan.owners[k] for k, block in enumerate(plan.blocks) for id in block}
    assert dataset.participants.tolist() == [owner[id] for id in dataset.ids.tolist()]


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("below", ["", "dataset"])
def test_rows_are_as_planted(mmap: bool, below: str, run: Path) -> None:
    dataset = coopt_fl.load(str(run / below), mmap=mmap)
    assert_planted(dataset)
    assert (len(dataset), dataset.dim) == (make.ROWS - len(make.SKIPPED), make.DIM)
    assert dataset.digest == dataset.provenance.digest
    assert dataset.path == run / "dataset"


def test_maps_are_built_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(coopt_fl.load(run, mmap=True).targets, np.memmap)
    monkeypatch.setattr(reading, "_build", lambda *_: pytest.fail("built again"))
    assert_planted(coopt_fl.load(run, mmap=True))


def test_maps_are_of_verified_files(run: Path, own_cache: Path) -> None:
    path = run / "dataset/data/part-00001.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for mmap in (True, False):
        with pytest.raises(VerificationError, match=r"part-00001.parquet has changed"):
            coopt_fl.load(run, mmap=mmap)
    assert not list(run.rglob("*.npy")) and not list(own_cache.rglob("*.npy"))


@pytest.mark.parametrize("damage", ["cut", "gone", "empty", "other dtype"])
@pytest.mark.parametrize("name", ["ids", "targets", "participants"])
def test_damaged_map_is_built_again(damage: str, name: str, run: Path, own_cache: Path) -> None:
    coopt_fl.load(run, mmap=True)
    (path,) = own_cache.rglob(f"{name}.npy")
    if damage == "gone":
        path.unlink()
    elif damage == "other dtype":
        np.save(path, np.load(path).astype(np.float64))
    else:
        path.write_bytes(path.read_bytes()[:-1] if damage == "cut" else b"")
    assert_planted(coopt_fl.load(run, mmap=True))


def test_maps_are_in_the_users_cache_and_what_comes_with_the_dataset_is_not_trusted(
    run: Path, own_cache: Path
) -> None:
    before = sorted((run / "dataset").rglob("*"))
    digest = coopt_fl.load(run, mmap=True).digest
    maps = own_cache / "targets" / digest
    assert sorted(path.name for path in maps.iterdir()) == [
        "ids.npy",
        "participants.npy",
        "targets.npy",
    ]
    assert sorted((run / "dataset").rglob("*")) == before
    poisoned = run / "dataset/.cache" / digest[:32]
    shutil.copytree(maps, poisoned)
    np.save(poisoned / "targets.npy", np.zeros_like(np.load(maps / "targets.npy")))
    shutil.rmtree(own_cache)
    assert_planted(coopt_fl.load(run, mmap=True))


def test_map_serves_only_its_own_dataset(run: Path) -> None:
    """Another dataset replaces the first, as after a new run."""
    before = coopt_fl.load(run, mmap=True).digest
    for path in (run / "state").rglob("*.npz"):
        path.unlink()
    make.finish(run, skipped=(1,))
    dataset = coopt_fl.load(run, mmap=True)
    assert dataset.digest != before
    assert 1 not in dataset.ids and len(dataset) == make.ROWS - 1


@pytest.mark.parametrize("mended", [False, True])
def test_maps_of_another_dataset_do_not_get_under_a_digest(
    mended: bool, run: Path, own_cache: Path, tmp_path: Path
) -> None:
    """The files' checksums are right, but their content does not have the dataset's digest."""
    other = make.finish(tmp_path / "other", skipped=(1, 2))
    digests = coopt_fl.load(run).provenance.block_digests

    def claim(provenance: dict[str, Any]) -> None:
        provenance["digest"] = dataset_digest(digests)
        if mended:
            provenance["block_digests"] = digests

    assert other.digest != dataset_digest(digests)
    make.edit(tmp_path / "other/dataset", claim)
    with pytest.raises(VerificationError, match=r"its digest stands for.*coopt inspect"):
        coopt_fl.load(tmp_path / "other", mmap=True)
    assert not list(own_cache.rglob("*.npy"))


@pytest.mark.parametrize("rows", [47, 49])
@pytest.mark.parametrize("mmap", [False, True])
def test_other_number_of_rows_than_promised(rows: int, mmap: bool, run: Path) -> None:
    make.edit(run / "dataset", lambda p: p.update(rows=rows))
    with pytest.raises(VerificationError, match=f"does not hold the {rows} rows"):
        coopt_fl.load(run, mmap=mmap)


@pytest.mark.parametrize("dim", [1, 3, 12])
def test_other_width_than_promised(dim: int, run: Path) -> None:
    make.edit(run / "dataset", lambda p: p.update(dim=dim))
    with pytest.raises(VerificationError, match=r"part-00000\.parquet has columns id int64"):
        coopt_fl.load(run)


def test_more_than_memory_holds_is_one_sentence(run: Path) -> None:
    make.edit(run / "dataset", lambda p: p.update(rows=1 << 60))
    with pytest.raises(DataError, match="mmap=True"):
        coopt_fl.load(run)


def test_unfinished_run_is_refused(run: Path) -> None:
    (run / "dataset/provenance.json").unlink()
    with pytest.raises(VerificationError, match="holds no finished optimized dataset"):
        coopt_fl.load(run)


@pytest.mark.parametrize("mmap", [False, True])
def test_pairs_of_image_and_target(mmap: bool, run: Path) -> None:
    source = open_source(make.DATA)
    dataset = coopt_fl.load(run, mmap=mmap)
    pairs = dataset.pair(source)
    assert len(pairs) == make.ROWS - len(make.SKIPPED)
    for row, id in enumerate(dataset.ids):
        image, target = pairs[row]
        assert torch.equal(image, source.read(np.array([id]))[0])
        assert target.dtype == torch.float32
        assert target.tolist() == make.target(np.array([id]))[0].tolist()
    images, targets = next(iter(DataLoader(pairs, batch_size=5)))
    assert images.shape == (5, 3, 8, 8) and targets.shape == (5, make.DIM)


@pytest.mark.parametrize("other", [{"limit": 49}, {"limit": 51}])
def test_wrong_source_is_refused(other: dict[str, object], run: Path) -> None:
    source = open_source(DataConfig(**{**vars(make.DATA), **other}))
    with pytest.raises(DataError, match=r"is not the source that .* was made from"):
        coopt_fl.load(run).pair(source)


def test_without_a_cache_targets_are_read_into_memory_where_they_fit(
    run: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cache.write_text("no folder")
    assert_planted(coopt_fl.load(run, mmap=True))
    monkeypatch.setattr("coopt_fl.optimized.read.free_memory", lambda: 100)
    with pytest.raises(OutputError, match="set COOPT_CACHE to a folder with room"):
        coopt_fl.load(run, mmap=True)
