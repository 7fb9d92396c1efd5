"""What alignment and fusion cost, against optimizing, and fusion against a plain write."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from coopt_fl.bench.case import Case, Reach, Row
from coopt_fl.bench.optimize import optimizing
from coopt_fl.bench.timing import in_turn, spread, timed
from coopt_fl.config.load import load_config
from coopt_fl.core.runtime import compute
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.block import Block
from coopt_fl.optimized.provenance import draft
from coopt_fl.optimized.write import publish
from coopt_fl.targets import fit_alignment, uniformity

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
    """Yield the row of random features and targets with a planted common part.

    The time depends on their shapes alone.
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
        warnings.simplefilter("ignore")  # that 1,000 shared samples are few for 512 targets
        aligned, optimized = in_turn(timed(align), optimize, REPEATS)
    yield ALIGNMENT.measured(
        spread(aligned / optimized),
        seconds=spread(aligned),
        optimize_seconds=spread(optimized),
    )


def fusion() -> Iterator[Row]:
    """Yield both rows."""
    ids = np.random.default_rng(0).permutation(SAMPLES)
    blocks = [np.sort(ids[start : start + BLOCK_ROWS]) for start in range(0, SAMPLES, BLOCK_ROWS)]
    unfinished = draft(
        config=load_config("digits"),
        source={"name": "array", "fingerprint": "", "rows": SAMPLES},
        contributors=[],
        reference="one",
        plan_changes=[],
        audit={},
    )
    with tempfile.TemporaryDirectory() as name:
        state = RunState(Path(name))
        _deliver(state, blocks)
        dataset, sizes = replace(unfinished, dim=DIM), [len(block) for block in blocks]
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


def _deliver(state: RunState, blocks: list[np.ndarray]) -> None:
    """Store random targets as payloads that came."""
    generator = np.random.default_rng(0)
    for index, ids in enumerate(blocks):
        targets = generator.normal(size=(len(ids), DIM)).astype(np.float16)
        participants, skipped = np.zeros(len(ids), np.int16), np.empty(0, np.int64)
        state.save_block(index, Block(ids, targets, participants, skipped, 0.0))


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
