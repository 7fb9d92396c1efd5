"""The images that are measured on: three kinds of source, made from a seed."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from coopt_fl.config.schema import DataConfig
from coopt_fl.data import Source, open_source
from coopt_fl.data.source import ArraySource

Pixels = NDArray[np.uint8]

CIFAR = (32, 32)
IMAGENET = (375, 500)
"""Height and width of ImageNet's typical photograph."""


@dataclass(frozen=True)
class Pictures:
    """Images of one kind.

    Attributes:
        kind: ``array``, ``jpeg-folder`` or ``parquet``.
        source: how we read them.
        origin: what is behind it: an array (N, H, W, 3), or a folder.
    """

    kind: str
    source: Source
    origin: Any


KINDS = {
    "array": "CIFAR's size, in memory",
    "jpeg-folder": "JPEG files of 500x375",
    "parquet": "JPEG of CIFAR's size in Parquet",
}
"""In words."""


@contextmanager
def pictures(kind: str, rows: int) -> Iterator[Pictures]:
    """Make ``rows`` images of a kind and open them; they are gone at the end of the block."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "array":
            pixels = np.stack([photograph(seed, CIFAR) for seed in range(rows)])
            yield Pictures(kind, ArraySource("array", pixels), pixels)
        elif kind == "jpeg-folder":
            (folder / "train" / "class").mkdir(parents=True)
            for seed in range(rows):
                path = folder / "train" / "class" / f"{seed}.jpg"
                path.write_bytes(jpeg(photograph(seed, IMAGENET)))
            yield Pictures(kind, _opened("imagefolder", folder), folder / "train")
        else:
            encoded = [jpeg(photograph(seed, CIFAR)) for seed in range(rows)]
            pq.write_table(pa.table({"image": encoded}), folder / "train.parquet")
            yield Pictures(kind, _opened("parquet", folder), folder)


def photograph(seed: int, size: tuple[int, int]) -> Pixels:
    """Return (H, W, 3) of soft colours under fine noise, which JPEG compresses like a photograph.

    At 500x375 a JPEG of it has some 60 kB.
    """
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    soft = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
    noisy = np.asarray(soft) + generator.normal(0, 8, (*size, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def jpeg(pixels: Pixels) -> bytes:
    """Return the file's bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def _opened(source: str, folder: Path) -> Source:
    return open_source(DataConfig(source=source, root=str(folder)))
