"""One unlabeled set of several domains: ``python -m experiments.domains --out DIR --cifar DIR``.

Photographs (CIFAR-10), clothes (Fashion-MNIST) and handwritten digits (scikit-learn), all as RGB
PNG of 32x32 pixels, shuffled once: ``train.parquet`` and ``test.parquet`` with the columns image,
label (30 classes) and domain. Besides, ``specialists-DOMAIN.parquet`` has further images of each
domain, on which its specialists are trained.
"""

import gzip
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from numpy.typing import NDArray
from PIL import Image

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.files import make_folder
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import open_source, split_labels
from experiments.command import run

SIDE, CLASSES = 32, 10
"""Image size in pixels, and number of classes of each domain."""

MOST = {"train": 6000, "test": 2000}
"""Most images of a domain in each split."""

SPECIALISTS = 10_000
"""Most images for the training of a domain's specialists."""

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Folder of Debian's package dataset-fashion-mnist."""

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images (N, 32, 32, 3), and their classes from 0 to 9 (N,)."""


def main(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    cifar: Annotated[Path, typer.Option(help="Folder of CIFAR-10 as Parquet files.")],
    fashion: Annotated[Path, typer.Option(help="Folder of Fashion-MNIST's idx files.")] = FASHION,
) -> None:
    """Write the set, and the images for training its specialists."""
    make_folder(out)
    for split, most in MOST.items():
        every = {
            "cifar10": of_source(DataConfig("parquet", str(cifar)), split),
            "fashion": idx(fashion, {"train": "train", "test": "t10k"}[split]),
            "digits": of_source(DataConfig("digits"), split),
        }
        left = 2 if split == "train" else 1  # leave at least half of train for specialists
        ends = {domain: min(most, len(y) // left) for domain, (_, y) in every.items()}
        parts = {one: (x[: ends[one]], y[: ends[one]]) for one, (x, y) in every.items()}
        write(out / f"{split}.parquet", parts, list(every))
        if split == "train":
            for domain, (x, y) in every.items():
                rest = slice(ends[domain], ends[domain] + SPECIALISTS)
                write(
                    out / f"specialists-{domain}.parquet", {domain: (x[rest], y[rest])}, list(every)
                )


def of_source(data: DataConfig, split: str) -> Part:
    """Return the images and labels of a source's split."""
    source, labels = open_source(data, split), split_labels(data, split)
    if labels is None:
        raise DataError(f"data.source={data.source} has no labels of its {split} split")
    return squares(image.permute(1, 2, 0).numpy() for image in source.read(source.ids)), labels


def idx(folder: Path, split: str) -> Part:
    """Return a split of Fashion-MNIST, padded from 28 to 32 pixels with black.

    Raises:
        DataError: A file is missing.
    """
    try:
        with gzip.open(folder / f"{split}-images-idx3-ubyte.gz") as file:
            grey = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
        with gzip.open(folder / f"{split}-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read: install Debian's dataset-fashion-mnist, or give its "
            "folder by --fashion"
        ) from error
    framed = np.pad(grey, ((0, 0), (2, 2), (2, 2)))
    return np.repeat(framed[..., None], 3, axis=3), labels


def squares(images: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return images (H, W, 3) of any size, resized to 32x32 pixels."""
    size = (SIDE, SIDE)
    return np.stack(
        [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for one in images]
    )


def write(file: Path, parts: dict[str, Part], domains: list[str]) -> None:
    """Write the shuffled images of some domains; labels are unique over all ``domains``."""
    images = np.concatenate([x for x, _ in parts.values()])
    labels = np.concatenate([CLASSES * domains.index(one) + y for one, (_, y) in parts.items()])
    names = np.repeat(list(parts), [len(y) for _, y in parts.values()])
    order = np.random.default_rng(derive_seed(0, file.stem)).permutation(len(labels))
    content = {
        "image": [_png(images[row]) for row in order],
        "label": labels[order],
        "domain": names[order].tolist(),
    }
    pq.write_table(pa.table(content), file)
    typer.echo(f"written: {file}, {len(order)} images")


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(run(main))
