"""What every source promises: stable ids, uint8 RGB, limits, and clear refusals."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import ConfigError, DataError
from coopt_fl.data import Source, open_source
from tests.unit.data.make import encode, parquet, pixels, tree

ROWS = 12


def folder_config(root: Path) -> DataConfig:
    tree(root, [f"train/{'ab'[k % 2]}/{k}.png" for k in range(ROWS)])
    return DataConfig(source="imagefolder", root=str(root))


def parquet_config(root: Path) -> DataConfig:
    parquet(root / "train.parquet", [encode(pixels(k)) for k in range(ROWS)])
    return DataConfig(source="parquet", root=str(root))


def digits_config(root: Path) -> DataConfig:
    return DataConfig(source="digits")


def synthetic_config(root: Path) -> DataConfig:
    return DataConfig(source="synthetic", limit=50)


KINDS = [folder_config, parquet_config, digits_config, synthetic_config]
Make = Callable[[Path], DataConfig]


@pytest.mark.parametrize("make", KINDS)
def test_images_by_id(make: Make, tmp_path: Path) -> None:
    source = open_source(make(tmp_path))
    assert source.ids.dtype == np.int64
    assert np.array_equal(source.ids, np.arange(len(source)))
    forward = source.read(source.ids)
    backward = source.read(source.ids[::-1])
    assert all(image.dtype == torch.uint8 and image.shape[0] == 3 for image in forward)
    assert all(map(torch.equal, forward, reversed(backward)))
    assert len({image.numpy().tobytes() for image in forward}) > len(source) * 0.9
    assert source.read(source.ids[:0]) == []


@pytest.mark.parametrize("make", KINDS)
def test_limit_keeps_the_first_ids(make: Make, tmp_path: Path) -> None:
    data = make(tmp_path)
    whole, some = open_source(data), open_source(DataConfig(**{**vars(data), "limit": 5}))
    assert np.array_equal(some.ids, np.arange(5))
    assert all(map(torch.equal, some.read(some.ids), whole.read(some.ids)))
    assert some.fingerprint != whole.fingerprint


@pytest.mark.parametrize("make", KINDS)
def test_survives_pickling(make: Make, tmp_path: Path) -> None:
    source = open_source(make(tmp_path))
    first = source.read(source.ids[:3])
    copy: Source = pickle.loads(pickle.dumps(source))
    assert all(map(torch.equal, first, copy.read(source.ids[:3])))
    assert copy.fingerprint == source.fingerprint


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_unknown_id_is_refused(make: Make, wrong: int, tmp_path: Path) -> None:
    source = open_source(make(tmp_path))
    with pytest.raises(DataError, match=f"id {wrong} is not in source .*data.limit"):
        source.read(np.array([0, wrong]))


def test_limit_above_the_rows_takes_all(tmp_path: Path) -> None:
    data = folder_config(tmp_path)
    data.limit = 10**6
    assert len(open_source(data)) == ROWS


def test_unknown_source_and_split_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.source: there is no 'nope'; there are digits"):
        open_source(DataConfig(source="nope"))
    with pytest.raises(DataError, match="unknown split 'val'; choose one of train, test"):
        open_source(DataConfig(), "val")


def test_digits_are_scikit_learns_in_grey() -> None:
    from sklearn.datasets import load_digits

    sources = [open_source(DataConfig(), split) for split in ("train", "test")]
    assert [len(source) for source in sources] == [1437, 360]
    ours = torch.cat([torch.stack(source.read(source.ids)) for source in sources])
    assert (ours[:, 0] == ours[:, 1]).all() and (ours[:, 0] == ours[:, 2]).all()
    theirs = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(image.numpy().tobytes() for image in ours[:, 0]) == sorted(
        image.tobytes() for image in theirs
    )
    assert len({source.fingerprint for source in sources}) == 2
