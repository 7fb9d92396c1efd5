"""Decoding in worker processes: the same batches, the same errors, and no hang."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data import batches, open_source
from coopt_fl.data.batches import Batch
from coopt_fl.data.source import CorruptImage, Source
from tests.unit.data import make

pytestmark = pytest.mark.timeout(600)


class Breaking(Source):
    """Kills its process, or raises, when it reads id 5."""

    encoded = True

    def __init__(self, how: str) -> None:
        super().__init__("breaking", 8, (2, 2))
        self._how = how

    @property
    def fingerprint(self) -> str:
        return "0" * 64

    def _read(self, ids: NDArray[np.int64]) -> list[Tensor]:
        if 5 in ids and self._how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if 5 in ids:
            raise DataError("the disk is on fire")
        return [torch.zeros(3, 2, 2, dtype=torch.uint8) for _ in ids]


def assert_same(left: Batch, right: Batch) -> None:
    assert np.array_equal(left.ids, right.ids)
    assert left.skipped == right.skipped
    assert isinstance(left.images, Tensor) == isinstance(right.images, Tensor)
    assert len(left.images) == len(right.images)
    assert all(map(torch.equal, left.images, right.images))


@pytest.mark.parametrize("kind", ["imagefolder", "parquet"])
def test_same_batches_as_in_process(kind: str, tmp_path: Path) -> None:
    """Sizes differ, some images are corrupt, blocks are uneven and out of order."""
    images = [make.encode(make.pixels(k, 5 + k // 10), "JPEG") for k in range(23)]
    images[7], images[12], images[13] = b"torn", b"", images[13][:90]
    if kind == "parquet":
        make.parquet(tmp_path / "train.parquet", images)
    else:
        for k, image in enumerate(images):
            make.write(tmp_path / f"train/c/{k}.jpg", image)
    source = open_source(DataConfig(source=kind, root=str(tmp_path)))
    blocks = np.split(np.random.default_rng(0).permutation(source.ids), [2, 11])
    here, there = (list(batches(source, blocks, 4, "skip", workers)) for workers in (0, 2))
    assert sum(len(batch.skipped) for batch in here) == 3
    for left, right in zip(here, there, strict=True):
        assert_same(left, right)
    with pytest.raises(CorruptImage, match="is corrupt") as caught:
        list(batches(source, blocks, 4, workers=2))
    assert caught.value.where == source.where(caught.value.id)


def test_worker_that_dies_is_an_error() -> None:
    source = Breaking("kill")
    with pytest.raises(DataError, match="a process that decodes images died"):
        list(batches(source, [source.ids], 2, workers=2))


def test_error_of_a_worker_arrives_as_it_was() -> None:
    source = Breaking("raise")
    with pytest.raises(DataError, match=r"^the disk is on fire$"):
        list(batches(source, [source.ids], 2, workers=2))
