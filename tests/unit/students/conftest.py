"""A planted optimized dataset: its targets are a fixed linear function of the images."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coopt_fl.config.schema import Config, DataConfig, StudentConfig
from coopt_fl.data import Source, open_source
from coopt_fl.optimized.provenance import draft
from coopt_fl.optimized.read import OptimizedDataset

DIM = 12


def as_dataset(source: Source, ids: NDArray[np.int64], targets: NDArray) -> OptimizedDataset:
    provenance = draft(
        config=Config(),
        source={"fingerprint": source.fingerprint},
        contributors=[],
        reference="best",
        plan_changes=[],
        audit={},
    )
    provenance = dataclasses.replace(
        provenance, rows=len(ids), dim=targets.shape[1], digest="0" * 64
    )
    nobody = np.zeros(len(ids), np.int16)
    return OptimizedDataset(Path("planted"), ids, targets.astype(np.float16), nobody, provenance)


def principal_targets(source: Source, ids: NDArray[np.int64]) -> NDArray:
    """Return the first principal components of the pixels, which contain the synthetic classes."""
    pixels = torch.stack(source.read(ids)).flatten(1).double()
    pixels -= pixels.mean(0)
    axes = torch.linalg.eigh(pixels.T @ pixels).eigenvectors[:, -DIM:]
    targets = pixels @ axes
    return (targets / targets.square().mean().sqrt()).numpy()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: small work is fastest so, and its last bits do not depend on the host."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data() -> DataConfig:
    return DataConfig(source="synthetic", limit=320)


@pytest.fixture
def planted(data: DataConfig) -> OptimizedDataset:
    """An optimized dataset with shuffled rows, because real ones are in the order of blocks."""
    source = open_source(data)
    ids = np.random.default_rng(0).permutation(source.ids)
    return as_dataset(source, ids, principal_targets(source, ids))


@pytest.fixture
def student() -> StudentConfig:
    """Settings with every source of randomness: shuffling, crops and flips, and optimizer state."""
    return StudentConfig(
        model="convnet:8",
        epochs=4,
        batch_size=32,
        lr=1e-2,
        augment="crop_flip",
        precision="float32",
    )  # fmt: skip - in which a training is repeatable to the last bit
