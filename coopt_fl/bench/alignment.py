"""What uniformity and alignment cost, over optimizing 50,000 samples.

Features and targets are random with a planted common part: the time depends on their shapes alone.
"""

import warnings
from collections.abc import Iterator

import numpy as np

from coopt_fl.bench.case import Case, Reach, Row
from coopt_fl.bench.optimize import optimizing
from coopt_fl.bench.timing import in_turn, spread, timed
from coopt_fl.core.runtime import compute
from coopt_fl.targets import fit_alignment, uniformity

REPEATS = 5
SAMPLES, SHARED, WIDTH, DIM, HIDDEN = 50_000, 1000, 2048, 512, 256

CASE = Case(
    "alignment",
    f"uniformity and alignment of a participant, |S| = {SHARED:,}, {WIDTH:,} -> {DIM}",
    f"optimizing {SAMPLES:,} samples by EfficientNet-Lite0 (ResNet-50 on a GPU)",
    Reach(0.01, at_least=False),
)


def measure() -> Iterator[Row]:
    """Yield the row."""
    generator = np.random.default_rng(0)
    common = generator.normal(size=(SHARED, HIDDEN))
    noise = generator.normal(size=(SHARED, WIDTH))
    features = (common @ generator.normal(size=(HIDDEN, WIDTH)) + noise).astype(np.float32)
    targets = (common @ generator.normal(size=(HIDDEN, DIM))).astype(np.float32)

    def align() -> None:
        uniformity(features)
        fit_alignment(features, targets)

    with optimizing(SAMPLES) as optimize, compute(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 1,000 shared samples are few for 512 targets
        pairs = in_turn(timed(align), optimize, REPEATS)
    yield CASE.measured(
        spread(aligned / optimized for aligned, optimized in pairs),
        seconds=spread(aligned for aligned, _ in pairs),
        optimize_seconds=spread(optimized for _, optimized in pairs),
    )
