"""Small images and files in the formats that sources read."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from coopt_fl.data import Source
from coopt_fl.data.blocks import make_blocks, make_units, shared_set
from coopt_fl.data.shards import Layout

Pixels = NDArray[np.uint8]


def pixels(seed: int, height: int = 6, width: int = 5) -> Pixels:
    """Noise (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image: Pixels, kind: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **more)
    return out.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def tree(root: Path, names: Sequence[str]) -> dict[str, Pixels]:
    """Write a PNG for each name below ``root``; image k is ``pixels(k)``."""
    images = {name: pixels(number) for number, name in enumerate(names)}
    for name, image in images.items():
        write(root / name, encode(image))
    return images


def parquet(path: Path, images: Any, row_group: int = 3, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": images, **columns}), path, row_group_size=row_group)
    return path


def as_tensor(image: Pixels) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


def flip_byte(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def layout(source: Source, seed: int = 0) -> Layout:
    """A layout with blocks of 60, an audit fraction of a fifth, and 30 shared samples."""
    units = make_units(make_blocks(source.ids, 60, seed), 0.2, seed)
    return Layout(units, shared_set(source.ids, 30, seed), 60, 0.2)
