"""The audit accepts an honest participant whose processor has another instruction set."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.runtime import compute, has_bfloat16
from coopt_fl.data import open_source
from coopt_fl.policies.audit import inconsistent
from coopt_fl.policies.evidence import spread
from coopt_fl.priors import load_prior
from coopt_fl.targets.optimize import represent

ROWS = 12
OLD_PROCESSOR = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
"""Makes oneDNN and torch use the instructions of a processor without AVX-512."""

IN_ANOTHER_PROCESS = """
import sys
import numpy as np
from tests.unit.policies.test_instruction_sets import targets
np.save(sys.argv[1], [targets(precision) for precision in sys.argv[2:]])
"""


def targets(precision: str) -> NDArray[np.float64]:
    """Return targets (ROWS, 32) of a real prior in this precision, by one fixed map."""
    source = open_source(DataConfig(source="digits"))
    prior = load_prior("timm:tf_efficientnet_lite0@bundled?size=40", "cpu", precision)
    with compute(1):
        found = represent(
            prior, source, source.ids[:ROWS], batch_size=4, precision=precision, on_error="raise"
        )
    weight = np.random.default_rng(0).normal(size=(prior.width, 32))
    return found.values.astype(np.float64) @ weight


@pytest.fixture(scope="module")
def precisions() -> list[str]:
    return ["float32", "bfloat16"] if has_bfloat16() else ["float32"]


@pytest.fixture(scope="module")
def old(
    precisions: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, NDArray[np.float64]]:
    """Targets by precision, computed as on a processor without AVX-512."""
    file = tmp_path_factory.mktemp("old") / "targets.npy"
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(file), *precisions]
    folder = Path(__file__).parents[3]
    done = subprocess.run(command, env=os.environ | OLD_PROCESSOR, cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return dict(zip(precisions, np.load(file), strict=True))


@pytest.mark.whole
def test_every_arithmetic_on_either_processor_agrees_within_the_tolerance(
    precisions: list[str], old: dict[str, NDArray[np.float64]]
) -> None:
    exact = targets("float32")
    for precision in precisions:
        for found in (old[precision], targets(precision)):
            assert inconsistent(found, exact, spread(exact), precision) is None


def test_the_tolerance_of_an_old_processor_hides_no_other_samples_targets(
    precisions: list[str], old: dict[str, NDArray[np.float64]]
) -> None:
    for precision in precisions:
        problem = inconsistent(
            np.roll(old[precision], 1, 0), old["float32"], spread(old["float32"]), precision
        )
        assert problem is not None and f"of {ROWS} targets differ" in problem
