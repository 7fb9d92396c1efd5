"""Assignment by competence on planted cases with a known best assignment."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coopt_fl.data import from_arrays
from coopt_fl.federation.groups import Groups
from experiments.agreement import Agreed, Rows, as_told
from experiments.competence import images_by_competence, predicted, regions, thumbnails
from experiments.lab import Lab
from experiments.scales import SCALES

(STUDY,) = SCALES["smoke"].values()
DOMAINS = ("red", "green", "blue")
ROWS = 300


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Agreed, Rows]:
    """Return three specialists, each of which sees only its own domain, and all images' domains."""
    rng = np.random.default_rng(0)
    domain = rng.integers(0, len(DOMAINS), ROWS)
    images = rng.integers(0, 150, (ROWS, 8, 8, 3), np.uint8)
    images[np.arange(ROWS), :, :, domain] += 80
    folder = tmp_path_factory.mktemp("planted")
    lab = Lab(replace(STUDY, data=from_arrays(images, domain).save(folder), block_rows=10))
    content = 2 + rng.standard_normal((ROWS, 2))
    features = {
        name: np.where(domain[:, None] == k, content, 0.0) + 0.02 * rng.standard_normal((ROWS, 2))
        for k, name in enumerate(DOMAINS)
    }
    exact = {name: x.astype(np.float32) for name, x in features.items()}
    how = {"elect": as_told, "shared": 120, "dim": 6}
    return lab, lab.agree(0, exact, **how), domain


def test_each_specialist_gets_its_domain(planted: tuple[Lab, Agreed, Rows]) -> None:
    lab, agreed, domain = planted
    region = regions(agreed, thumbnails(lab.source), 6, seed=0)
    parts = images_by_competence(agreed, region, np.inf, seed=0)
    assert np.array_equal(np.sort(np.concatenate([*parts.values()])), lab.all)
    for k, name in enumerate(DOMAINS):
        assert np.mean(domain[parts[name]] == k) > 0.95
    how = {"elect": as_told, "shared": 120, "dim": 6}
    competent = lab.agree(0, agreed.features, groups=Groups(parts, owned=True), **how)
    assert predicted(agreed) < 0.5 < 0.9 < predicted(competent)
    made, owners = competent.fused()
    for k, name in enumerate(DOMAINS):
        assert np.array_equal(np.flatnonzero(owners == k), parts[name])
        wanted = competent.targets(name, agreed.features[name])[parts[name]]
        np.testing.assert_allclose(made[parts[name]], wanted, atol=1e-5)


def test_no_shard_is_larger_than_it_may_be(planted: tuple[Lab, Agreed, Rows]) -> None:
    _, agreed, domain = planted
    most = np.bincount(domain).max()
    equal = images_by_competence(agreed, domain, 1, seed=0)
    assert [len(rows) for rows in equal.values()] == [ROWS // 3] * 3 != [most] * 3
    one = images_by_competence(agreed, np.zeros_like(domain), 1.5, seed=0)
    assert sorted(len(rows) for rows in one.values()) == [0, 150, 150]


def test_thumbnails_are_means_of_the_pixels(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    folder = from_arrays(images).save(tmp_path)
    seen = thumbnails(Lab(replace(STUDY, data=folder)).source)
    assert seen.shape == (4, 192)
    assert np.corrcoef(seen[:, :64].mean(axis=1), images[..., 0].mean(axis=(1, 2)))[0, 1] > 0.99
