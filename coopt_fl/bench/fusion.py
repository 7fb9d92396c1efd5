"""Fusing blocks and writing the dataset, over optimizing it and over a plain write of the bytes."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from coopt_fl.bench.case import Case, Reach, Row
from coopt_fl.bench.optimize import optimizing
from coopt_fl.bench.timing import in_turn, spread, timed
from coopt_fl.config.load import load_config
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.block import Block
from coopt_fl.optimized.provenance import draft
from coopt_fl.optimized.write import publish

REPEATS = 5
SAMPLES, DIM, BLOCK_ROWS = 50_000, 512, 1024
PATH = f"fuse {SAMPLES:,} x {DIM} targets and write the dataset"

AGAINST_OPTIMIZE = Case(
    "fuse/optimize",
    PATH,
    "optimizing as many by EfficientNet-Lite0 (ResNet-50 on a GPU)",
    Reach(0.02, at_least=False),
)
AGAINST_WRITE = Case("fuse/write", PATH, "a plain write of the same bytes, synced", Reach(0.15))


def measure() -> Iterator[Row]:
    """Yield both rows."""
    ids = np.random.default_rng(0).permutation(SAMPLES)
    blocks = [np.sort(ids[start : start + BLOCK_ROWS]) for start in range(0, SAMPLES, BLOCK_ROWS)]
    sizes = [len(block) for block in blocks]
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
        dataset = replace(unfinished, dim=DIM)
        fuse = timed(lambda: publish(state.dataset, dataset, sizes, state.block, lambda rows: None))
        fuse()
        files = list((state.dataset / "data").iterdir())
        content = b"".join(file.read_bytes() for file in files)
        with optimizing(SAMPLES) as optimize:
            pairs = in_turn(fuse, optimize, REPEATS)
        yield AGAINST_OPTIMIZE.measured(
            spread(fused / optimized for fused, optimized in pairs),
            seconds=spread(fused for fused, _ in pairs),
            optimize_seconds=spread(optimized for _, optimized in pairs),
        )
        pairs = in_turn(fuse, timed(lambda: _write(Path(name) / "plain", content)), REPEATS)
        yield AGAINST_WRITE.measured(
            spread(plain / fused for fused, plain in pairs),
            seconds=spread(fused for fused, _ in pairs),
            write_seconds=spread(plain for _, plain in pairs),
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
