"""The platform and the experiments make the same targets from the same images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import coopt_fl
from coopt_fl.config.load import from_tree
from coopt_fl.core.runtime import compute
from coopt_fl.optimized.read import OptimizedDataset
from experiments.lab import NAMES, Lab
from experiments.scales import SCALES
from tests.flower.grid import run_platform

STUDY = replace(
    SCALES["cpu"]["digits"], priors=("trivial:24", "trivial:32", "trivial:20"), shared=64, dim=16
)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(STUDY)


def on_platform(out: Path, reference: str, solver: str, consensus: str) -> OptimizedDataset:
    """Return what the platform publishes of the study's collaboration, with seed 3."""
    roster = [{"name": n, "prior": p} for n, p in zip(NAMES, STUDY.priors, strict=False)]
    tree = {
        "seed": 3,
        "data": {"source": "digits"},
        "participants": roster,
        "shared": {"size": STUDY.shared},
        "targets": {"dim": STUDY.dim, "solver": solver, "consensus": consensus},
        "reference": reference,
        "optimize": {"block_rows": STUDY.block_rows, "batch_size": 32},
        "audit": {"fraction": STUDY.audit},
        "runtime": {"threads": 1},
    }
    run_platform(from_tree(tree, [], "same method"), out)
    return coopt_fl.load(out)


@pytest.mark.parametrize("solver", ["ridge", "procrustes"])
@pytest.mark.parametrize(
    ("reference", "consensus"), [("best", "pca"), ("consensus", "pca"), ("consensus", "gcca")]
)
def test_targets(lab: Lab, tmp_path: Path, reference: str, consensus: str, solver: str) -> None:
    with compute(1):
        made = lab.collaborate(3, reference=reference, solver=solver, consensus=consensus)
    published = on_platform(tmp_path, reference, solver, consensus)
    assert published.provenance.reference == made.agreed.election.reference
    order = np.argsort(published.ids)
    np.testing.assert_array_equal(published.ids[order], made.rows)
    np.testing.assert_array_equal(published.participants[order], made.participants)
    alignments = made.agreed.alignments
    assert {one.name: one.alignment_sha256 for one in published.provenance.contributors} == {
        name: one.sha256 for name, one in alignments.items()
    }
    close(published.targets[order], made.targets.astype(np.float16))


def close(one: np.ndarray, other: np.ndarray) -> None:
    """Assert that float16 numbers differ by 2 units in the last place at most.

    Below 0.001 the unit is that of 0.001, because smaller units are below float32 rounding errors.
    """
    unit = np.spacing(np.maximum(np.abs(one), np.float16(0.001)))
    np.testing.assert_array_less(np.abs(one - other), 2.1 * unit.astype(np.float32))
