"""Cost of alignment and fusion relative to optimization, and of fusion to a plain write."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from coopt_fl.bench.inputs import store, unfinished
from coopt_fl.bench.measure import Case, Reach, Row, in_turn, spread, timed
from coopt_fl.bench.optimization import optimizing
from coopt_fl.core.runtime import compute
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.write import publish
from coopt_fl.targets import Encoded, fit_alignment, uniformity

REPEATS = 5
SAMPLES, DIM = 50_000, 512
SHARED, WIDTH, HIDDEN = 1000, 2048, 256
BLOCK_ROWS = 1024
OPTIMIZING = "by EfficientNet-Lite0 (ResNet-50 on a GPU)"

ALIGNMENT = Case(
    "alignment",
    f"uniformity and alignment of a participant, |S| = {SHARED:,}, {WIDTH:,} -> {DIM}",
    f"optimizing {SAMPLES:,} samples {OPTIMIZING}",
    Reach(0.01, at_least=False),
)
FUSION = f"fuse {SAMPLES:,} x {DIM} targets and write the dataset"
FUSION_OVER_OPTIMIZING = Case(
    "fuse/optimize", FUSION, f"optimizing as many {OPTIMIZING}", Reach(0.02, at_least=False)
)
FUSION_OVER_WRITING = Case(
    "fuse/write", FUSION, "a plain write of the same bytes, synced", Reach(0.15)
)


def alignment() -> Iterator[Row]:
    """Yield the row for random features and targets with a common component.

    The time depends only on their shapes.
    """
    generator = np.random.default_rng(0)
    common = generator.normal(size=(SHARED, HIDDEN))
    noise = generator.normal(size=(SHARED, WIDTH))
    features = (common @ generator.normal(size=(HIDDEN, WIDTH)) + noise).astype(np.float32)
    targets = (common @ generator.normal(size=(HIDDEN, DIM))).astype(np.float32)

    def align() -> None:
        uniformity(features)
        fit_alignment(features, targets)

    with optimizing(SAMPLES) as optimize, compute(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 1,000 shared samples are few for 512 dimensions
        aligned, optimized = in_turn(timed(align), optimize, REPEATS)
    yield ALIGNMENT.measured(
        spread(aligned / optimized),
        seconds=spread(aligned),
        optimize_seconds=spread(optimized),
    )


def fusion() -> Iterator[Row]:
    """Yield both rows."""
    generator, blocks = np.random.default_rng(0), list[Encoded]()
    for ids in np.split(generator.permutation(SAMPLES), range(BLOCK_ROWS, SAMPLES, BLOCK_ROWS)):
        targets = generator.normal(size=(len(ids), DIM)).astype(np.float16)
        blocks.append(Encoded(np.sort(ids), targets, np.ones(len(ids), bool), ()))
    dataset, sizes = unfinished(SAMPLES, DIM), [len(block.ids) for block in blocks]
    with tempfile.TemporaryDirectory() as name:
        state = RunState(Path(name))
        store(state, blocks)
        fuse = timed(lambda: publish(state.dataset, dataset, sizes, state.block, lambda rows: None))
        fuse()
        files = list((state.dataset / "data").iterdir())
        content = b"".join(file.read_bytes() for file in files)
        with optimizing(SAMPLES) as optimize:
            fused, optimized = in_turn(fuse, optimize, REPEATS)
        yield FUSION_OVER_OPTIMIZING.measured(
            spread(fused / optimized),
            seconds=spread(fused),
            optimize_seconds=spread(optimized),
        )
        fused, plain = in_turn(fuse, timed(lambda: _write(Path(name) / "plain", content)), REPEATS)
        yield FUSION_OVER_WRITING.measured(
            spread(plain / fused),
            seconds=spread(fused),
            write_seconds=spread(plain),
            megabytes=round(len(content) / 1e6, 1),
        )


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
