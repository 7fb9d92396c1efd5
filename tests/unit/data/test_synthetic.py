"""Synthetic images depend only on their id, and have a class that can be predicted."""

import numpy as np
import torch

from coopt_fl.config.schema import DataConfig
from coopt_fl.data import open_source
from coopt_fl.data.labels import open_labels

DATA = DataConfig(source="synthetic", limit=3000)


def test_an_image_depends_on_its_id_alone() -> None:
    small, large = (
        open_source(DataConfig(source="synthetic", limit=rows)) for rows in (100, 10**7)
    )
    ids = np.array([3, 77, 12])
    assert all(map(torch.equal, small.read(ids), large.read(ids)))
    assert torch.equal(large.read(np.array([10**7 - 1, 77]))[1], small.read(ids)[1])


def test_splits_differ_and_have_their_sizes() -> None:
    train, test = open_source(DATA), open_source(DATA, "test")
    assert (len(train), len(test)) == (3000, 600)
    pairs = zip(train.read(test.ids), test.read(test.ids), strict=True)
    assert not any(torch.equal(*pair) for pair in pairs)
    assert train.fingerprint != test.fingerprint
    assert len(open_source(DataConfig(source="synthetic"))) == 10_000
    assert len(open_source(DataConfig(source="synthetic", limit=1), "test")) == 1


def test_class_is_planted_under_noise() -> None:
    """The train split's class means classify test images; single train images hardly do."""
    pixels, classes = {}, {}
    for split in ("train", "test"):
        source = open_source(DATA, split)
        pixels[split] = torch.stack(source.read(source.ids)).flatten(1).double()
        classes[split] = torch.from_numpy(open_labels(DATA, split))
        assert classes[split].tolist() == [id % 10 for id in range(len(source))]
    means = torch.stack([pixels["train"][classes["train"] == c].mean(0) for c in range(10)])
    by_mean = torch.cdist(pixels["test"], means).argmin(1)
    nearest = torch.cdist(pixels["test"], pixels["train"]).argmin(1)
    assert (by_mean == classes["test"]).double().mean() > 0.95
    assert (classes["train"][nearest] == classes["test"]).double().mean() < 0.8
    assert len(np.unique(pixels["train"].numpy(), axis=0)) == 3000
