"""Sources of images that a program has in memory: arrays, or a torch Dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import expanded, make_folder
from coopt_fl.data.image import UndecodableError, rgb
from coopt_fl.data.source import SPLITS, Source
from coopt_fl.data.sources.arrays import NAME, Arrays, remove


class OwnSource(Source):
    """The train images of a program; it may also have labels and a test split."""

    def __init__(self, train: Arrays, test: Arrays | None) -> None:
        self._splits = {"train": train} if test is None else {"train": train, "test": test}
        self._images, self.given_labels = train.source(), train.labels
        super().__init__(NAME, len(self._images), self._images.image_size)

    def __repr__(self) -> str:
        test = len(self._splits["test"].source()) if "test" in self._splits else 0
        return f"OwnSource({len(self)} images, {test} to test)"

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the shape and the bytes of the train images."""
        return self._images.fingerprint

    def save(self, folder: str | Path) -> DataConfig:
        """Write all splits to ``folder``, replacing those in it, and return settings to open them.

        Every command then takes ``data.source=arrays data.root=FOLDER``.

        Raises:
            OutputError: the files cannot be written.
        """
        root = expanded(folder).resolve()
        make_folder(root)
        for split in SPLITS:
            if split in self._splits:
                self._splits[split].save(root, split)
            else:
                remove(root, split)
        return DataConfig(source=NAME, root=str(root))

    def _read(self, ids: NDArray[np.int64]) -> list[Tensor]:
        return self._images.read(ids)


def from_arrays(
    images: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    test_images: ArrayLike | None = None,
    test_labels: ArrayLike | None = None,
) -> OwnSource:
    """Return a source of images in memory; nothing is copied.

    Labels are used by the probe alone, which needs those of both splits.

    Args:
        images: uint8 (N, H, W, 3) for RGB, or (N, H, W) for grey.
        labels: whole numbers (N,), counted from 0.
        test_images: like ``images``, for the test split.
        test_labels: like ``labels``, for the test split.

    Raises:
        ConfigError: an array has another shape or type.
    """
    if test_images is None and test_labels is not None:
        raise ConfigError("test_labels come without test_images: give both")
    test = None if test_images is None else _split(test_images, test_labels, "test_images")
    return OwnSource(_split(images, labels, "images"), test)


def from_dataset(train: Any, test: Any = None) -> OwnSource:
    """Return a source of the images of a torch Dataset, which is read once, into memory.

    Without a test split there is no probe. Millions of images are better given as files
    (``data.source=imagefolder``).

    Args:
        train: ``train[i]`` is (image, label). A label is None or a whole number from 0 on; an image
            is a PIL image, a uint8 array (H, W) or (H, W, 3), or a tensor (1, H, W) or (3, H, W),
            uint8 or floating point in [0, 1].
        test: such a dataset for the test split.

    Raises:
        ConfigError: an image or label is something else.
    """
    return OwnSource(_read(train), None if test is None else _read(test))


def _split(images: ArrayLike, labels: ArrayLike | None, name: str) -> Arrays:
    try:
        pixels = np.asarray(images)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{name} are no array of equally large images ({error}); for images of several sizes, "
            "give from_dataset a list of (image, label)"
        ) from error
    grey, colour = pixels.ndim == 3, pixels.ndim == 4 and pixels.shape[3] == 3
    if pixels.dtype != np.uint8 or not (grey or colour) or not pixels.size:
        first = pixels.ndim == 4 and pixels.shape[1] in (1, 3)
        hint = "; move the channels last: images.transpose(0, 2, 3, 1)" if first else ""
        raise ConfigError(
            f"{name} must be uint8 (N, H, W, 3) or (N, H, W), not {pixels.dtype} "
            f"{pixels.shape}{hint}"
        )
    return Arrays(pixels, labels=None if labels is None else _numbers(labels, len(pixels)))


def _numbers(labels: ArrayLike, rows: int) -> NDArray[np.int64]:
    found = np.asarray(labels)
    if found.shape != (rows,) or found.dtype.kind not in "iu" or found.min() < 0:
        raise ConfigError(
            f"labels must be {rows} whole numbers from 0 on, one for each image, not "
            f"{found.dtype} {found.shape}"
        )
    return found.astype(np.int64)


def _read(dataset: Any) -> Arrays:
    """Read all of a dataset; images of one size become one array."""
    images, labels = list[NDArray[np.uint8]](), list[Any]()
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise ConfigError(
            f"{type(dataset).__name__} can only be read from its beginning on: register a source "
            "that returns coopt_fl.data.Stream(rows, name), and copy it by `coopt publish-shards`, "
            "as docs/data.md shows"
        )
    for row in range(len(dataset)):
        item = dataset[row]
        if not isinstance(item, Sequence) or len(item) != 2:
            raise ConfigError(
                f"item {row} of the dataset must be (image, label), not {type(item).__name__}"
            )
        images.append(_pixels(item[0], row))
        labels.append(item[1])
    if not images:
        raise ConfigError("the dataset is empty")
    known = None if any(label is None for label in labels) else _numbers(labels, len(labels))
    if len({image.shape for image in images}) == 1:
        return Arrays(np.stack(images), labels=known)
    sizes = np.array([image.shape[:2] for image in images], np.int64)
    return Arrays(np.concatenate([image.reshape(-1) for image in images]), sizes, known)


def _pixels(image: Any, row: int) -> NDArray[np.uint8]:
    """Return an image as uint8 (H, W, 3)."""
    if isinstance(image, Image.Image):
        try:
            image = rgb(image)
        except UndecodableError as error:
            raise ConfigError(f"image {row} of the dataset: {error}; {error.advice}") from error
    elif isinstance(image, Tensor) and image.ndim == 3:
        if image.is_floating_point() and image.min() >= 0 and image.max() <= 1:
            image = (image * 255).round().to(torch.uint8)
        image = image.detach().cpu().permute(1, 2, 0).numpy()
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        if image.ndim == 2:
            image = image[..., None]
        if image.ndim == 3 and image.shape[2] in (1, 3) and image.size:
            return np.broadcast_to(image, (*image.shape[:2], 3)).copy()
    raise ConfigError(
        f"image {row} of the dataset must be a PIL image, a uint8 array (H, W) or (H, W, 3), or a "
        f"tensor (C, H, W), not {type(image).__name__}"
    )
