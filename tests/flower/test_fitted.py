"""A configuration made by `coopt config --fit`, run by the real platform and participants."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coopt_fl.config.load import load_config
from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ParticipantError
from coopt_fl.core.progress import Progress
from coopt_fl.ops.fit import fit
from coopt_fl.optimized.verify import verify
from coopt_fl.policies.reference import Election
from tests.flower.grid import run_platform

PRIORS = [f"participants.{k}.prior=trivial:{width}" for k, width in enumerate((64, 48, 56))]


class Told(Progress):
    """Collects warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def photos(folder: Path, count: int) -> Path:
    """Write gradients of random colours and sizes, on which different priors agree."""
    rng = np.random.default_rng(count)
    (folder / "train").mkdir(parents=True)
    for number in range(count):
        height, width = rng.integers(20, 60, 2)
        ramp = np.linspace(0, 1, height)[:, None, None] * np.ones((height, width, 1))
        image = ramp * rng.uniform(0, 255, 3) + (1 - ramp) * rng.uniform(0, 255, 3)
        Image.fromarray(image.astype(np.uint8)).save(folder / "train" / f"{number}.jpg")
    return folder


@pytest.mark.parametrize("count", [12, 26, 61, 400])
def test_the_consensus_is_kept_and_everybody_has_work(tmp_path: Path, count: int) -> None:
    # participants in this process know a folder by its path, and pytest uses paths again
    found = fit(
        photos(tmp_path / f"photos-{count}", count), tmp_path / "it.yaml", "parquet", PRIORS
    )
    told = Told()
    run_platform(load_config(found["path"]), tmp_path / "run", progress=told)
    provenance = verify(tmp_path / "run" / "dataset")[0]
    assert provenance.reference == "consensus"
    files = (tmp_path / "run" / "state" / "blocks").glob("*.npz")
    done = Counter(who for file in files for who in np.load(file)["participants"].tolist())
    assert set(done) == {0, 1, 2} and sum(done.values()) == count
    assert all("shared samples are few" in warning for warning in told.warnings)
    assert bool(told.warnings) == (count == 12) == any("too few" in w for w in found["warnings"])


def unfitted(folder: Path, **sizes: int) -> Config:
    changes = [f"{key.replace('_', '.', 1)}={size}" for key, size in sizes.items()]
    root = photos(folder, 50)
    return load_config(
        "parquet", ["data.source=imagefolder", f"data.root={root}", *PRIORS, *changes]
    )


def test_warnings_about_sizes_propose_it(tmp_path: Path) -> None:
    """The error for a too small shared set advises as many samples as there are images."""
    told = Told()
    config = unfitted(tmp_path / "photos", shared_size=50, targets_dim=40)
    run_platform(config, tmp_path / "run", progress=told)
    proposal = f"; `coopt config --fit {config.data.root}` suits all sizes to the images"
    proposing = [warning for warning in told.warnings if warning.endswith(proposal)]
    for about, warning in zip(
        ("share 1 blocks", "a consensus of 40", "50 shared samples are few"), proposing, strict=True
    ):
        assert about in warning


def test_an_election_that_fails_proposes_it(tmp_path: Path) -> None:
    def nobody(*_: object) -> Election:
        raise ParticipantError("nothing to align to: raise shared.size")

    config = unfitted(tmp_path / "photos", shared_size=20, targets_dim=8, optimize_block_rows=10)
    with pytest.raises(ParticipantError, match=r"raise shared\.size; `coopt config --fit"):
        run_platform(config, tmp_path / "run", reference=nobody)
