"""What uniformity and alignment cost, over optimizing 50,000 samples.

Features and targets are random with a planted common part: the time depends on their shapes alone.
"""

import warnings
from collections.abc import Iterator

import numpy as np

from benchmarks.case import Case, Reach, Row
from benchmarks.optimize import seconds_per_sample
from benchmarks.timing import spread, timed
from coopt_fl.runtime import compute
from coopt_fl.targets import fit_alignment, uniformity

REPEATS = 5
SAMPLES, SHARED, WIDTH, DIM, HIDDEN = 50_000, 1000, 2048, 512, 256

CASE = Case(
    "alignment",
    f"uniformity and alignment of a participant, |S| = {SHARED:,}, {WIDTH:,} -> {DIM}",
    f"its optimizing {SAMPLES:,} samples",
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

    per_sample = seconds_per_sample()
    with compute(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 1,000 shared samples are few for 512 targets
        align()
        seconds = [timed(align)() for _ in range(REPEATS)]
    yield CASE.measured(
        spread(one / (per_sample * SAMPLES) for one in seconds),
        seconds=spread(seconds),
        optimize_seconds=round(per_sample * SAMPLES, 1),
    )
