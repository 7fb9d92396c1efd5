"""Inputs of the benchmarks: synthetic images in three kinds of source, and random targets."""

import io
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from coopt_fl.config.load import load_config
from coopt_fl.config.schema import DataConfig
from coopt_fl.data import Source, open_source
from coopt_fl.data.source import ArraySource
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.block import Block
from coopt_fl.optimized.provenance import Provenance, draft
from coopt_fl.targets import Encoded

Pixels = NDArray[np.uint8]

CIFAR = (32, 32)
IMAGENET = (375, 500)
"""Height and width of a typical image of ImageNet."""

KINDS = {
    "array": "CIFAR's size, in memory",
    "jpeg-folder": "JPEG files of 500x375",
    "parquet": "JPEG of CIFAR's size in Parquet",
}
"""Description of each kind of source."""


@contextmanager
def pictures(kind: str, rows: int) -> Iterator[tuple[Source, Any]]:
    """Make ``rows`` images of a kind; they are deleted at the end of the block.

    Yields:
        A source of the images, and the data behind it: an array (N, H, W, 3), or a folder.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "array":
            pixels = np.stack([photograph(seed, CIFAR) for seed in range(rows)])
            yield ArraySource("array", pixels), pixels
        elif kind == "jpeg-folder":
            (folder / "train" / "class").mkdir(parents=True)
            for seed in range(rows):
                path = folder / "train" / "class" / f"{seed}.jpg"
                path.write_bytes(jpeg(photograph(seed, IMAGENET)))
            yield open_source(DataConfig(source="imagefolder", root=name)), folder / "train"
        else:
            encoded = [jpeg(photograph(seed, CIFAR)) for seed in range(rows)]
            pq.write_table(pa.table({"image": encoded}), folder / "train.parquet")
            yield open_source(DataConfig(source="parquet", root=name)), folder


def unfinished(rows: int, dim: int) -> Provenance:
    """Return the provenance of a dataset (rows, dim) with no contributors and no blocks yet."""
    source = {"name": "array", "fingerprint": "", "rows": rows}
    nobody = draft(config=load_config("digits"), source=source, reference="one")
    return replace(nobody, dim=dim)


def store(state: RunState, made: Iterable[Encoded]) -> None:
    """Store the blocks of one participant, as the platform does."""
    for index, one in enumerate(made):
        participants, skipped = np.zeros(len(one.ids), np.int16), np.empty(0, np.int64)
        state.save_block(index, Block(one.ids, one.values, participants, skipped, 0.0))


def photograph(seed: int, size: tuple[int, int]) -> Pixels:
    """Return an image (H, W, 3) of soft colours and fine noise, as compressible as a photograph.

    As JPEG, 500x375 pixels take about 60 kB.
    """
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    soft = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
    noisy = np.asarray(soft) + generator.normal(0, 8, (*size, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def jpeg(pixels: Pixels) -> bytes:
    """Return the image encoded as JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()
