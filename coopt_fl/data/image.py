"""Decode image files to uint8 RGB, and preprocess images on a model's device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL
import torch
from PIL import ExifTags, Image, UnidentifiedImageError, features
from torch import Tensor
from torch.nn import functional

from coopt_fl.config.schema import MOST_PIXELS
from coopt_fl.core.errors import ConfigError
from coopt_fl.data.opening import TIFF, opened, without_texts

INTERPOLATIONS = ("bilinear", "bicubic")

ORIENTATION = ExifTags.Base.Orientation
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that shows an image upright, by its EXIF orientation. Pillow's
``exif_transpose`` also rewrites the EXIF data, which fails if they are damaged."""

BITS_PER_SAMPLE, SAMPLE_FORMAT = ExifTags.Base.BitsPerSample, ExifTags.Base.SampleFormat
WHITE_IS_ZERO = ExifTags.Base.PhotometricInterpretation
"""TIFF tags; Pillow respects the last one only in images of 8 bits."""

KINDS = {2: "signed", 3: "floating-point"}
"""Kinds of numbers by their ``SAMPLE_FORMAT``; all others are treated as unsigned."""

TO_8_BITS = "convert it to 8 or 16 bits"

LONGEST = 16
"""Longest edge of an image over its shorter one; the rest is cropped before resizing, since a long
strip would be enlarged to gigabytes."""


class UndecodableError(Exception):
    """Pillow cannot decode these bytes; the message says why.

    ``advice`` says what to do about an intact image of an unsupported kind.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice


def decoder() -> str:
    """Return the libraries that decode image files here; others may give other pixels."""
    lossy = {name: features.version(name) for name in ("libjpeg_turbo", "jpg", "webp")}
    found = [f"{name} {version}" for name, version in lossy.items() if version]
    return ", ".join([f"Pillow {PIL.__version__}", *found, "turned as EXIF says"])


def decode(encoded: bytes, edge: int | None = None, most_pixels: int = MOST_PIXELS) -> Tensor:
    """Decode an image file to uint8 RGB (3, H, W), upright by its EXIF orientation.

    With ``edge``, a JPEG file is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size whose
    shorter edge has at least that many pixels.

    Grey is repeated in all channels; of grey with 12 or 16 bits the upper 8 are kept. In memory,
    the channels of a pixel are adjacent, as in most files; CPUs resize this layout fastest.

    Raises:
        UndecodableError: the bytes cannot be decoded, or have more than ``most_pixels``.
    """
    if not encoded:
        raise UndecodableError("it holds no bytes")
    try:
        pixels = _decoded(encoded, edge, most_pixels)
    except UndecodableError:
        raise
    except UnidentifiedImageError as error:
        if encoded.startswith(TIFF):
            raise UndecodableError("it is a TIFF file of an unknown kind", TO_8_BITS) from error
        raise UndecodableError("it is no known image format") from error
    except Image.DecompressionBombError as error:
        raise UndecodableError(
            f"it has more pixels than data.max_pixels={most_pixels}",
            "set data.max_pixels to as many if it is no attack",
        ) from error
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise UndecodableError(str(error) or type(error).__name__) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _decoded(
    encoded: bytes, edge: int | None, most_pixels: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return uint8 (H, W, 3)."""
    try:
        with opened(encoded, most_pixels) as image:
            if edge is not None:
                image.draft(None, (edge, edge))
            return rgb(image)
    except ValueError as error:
        if "MAX_TEXT" not in str(error):
            raise
        return _decoded(without_texts(encoded), edge, most_pixels)


def rgb(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the pixels (H, W, 3), upright by the EXIF orientation.

    Raises:
        UndecodableError: the range of its values is unknown, as of floating-point numbers.
    """
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    bits = _bits(image, tags)
    kind = KINDS.get(max(tags.get(SAMPLE_FORMAT, (1,))), "floating-point" * (image.mode == "F"))
    if bits > 16 or kind:
        raise UndecodableError(
            f"its pixels are {bits}-bit {kind or 'whole'} numbers, and which of them is white is "
            "not known",
            TO_8_BITS,
        )
    image = _turned(image)
    if bits > 8:  # Pillow would clip them to 255 instead of scaling them
        grey = (np.asarray(image, dtype=np.int64) >> (bits - 8)).clip(0, 255).astype(np.uint8)
        if tags.get(WHITE_IS_ZERO) == 0:
            grey = 255 - grey
        return grey[..., None].repeat(3, axis=2)
    return np.array(image.convert("RGB"))


def _turned(image: Image.Image) -> Image.Image:
    """Return an image upright by its EXIF orientation, as Hugging Face's ``datasets`` do."""
    image.load()  # errors of its pixels must not be caught below
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow raises nearly anything for damaged EXIF data, which viewers ignore
        return image
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _bits(image: Image.Image, tags: Mapping[int, Any]) -> int:
    """Return the bits of a grey value, or 8 for any other image; ``tags`` are those of TIFF."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        bits = 16  # Pillow stores these in 32 bits for PNG and PPM
    elif image.mode in "IF":
        bits = 32
    else:
        return 8
    return int(max(tags.get(BITS_PER_SAMPLE, (bits,))))


@dataclass(frozen=True)
class Preprocess:
    """How images become the input of a model.

    Attributes:
        size: side of the square input in pixels.
        resize: length of the shorter edge before the centre crop, at least ``size``.
        interpolation: "bilinear" or "bicubic", antialiased when shrinking, like Pillow's.
        mean: per RGB channel, for values in [0, 1].
        std: per RGB channel, for values in [0, 1].
    """

    size: int
    resize: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise ConfigError(
                f"unknown interpolation {self.interpolation!r}; "
                f"choose one of {', '.join(INTERPOLATIONS)}"
            )
        if not len(self.mean) == len(self.std) == 3 or not min(self.std) > 0:
            raise ConfigError(
                "mean and std have three entries, those of std above 0, not "
                f"{self.mean} and {self.std}"
            )
        if not 0 < self.size <= self.resize:
            raise ConfigError(
                f"cannot crop {self.size} pixels out of {self.resize}; "
                "resize must be at least size, and size positive"
            )

    @property
    def fitted(self) -> "Preprocess":
        """The preprocessing for images that :meth:`square` has already resized and cropped."""
        return replace(self, resize=self.size)

    def __call__(
        self, images: Tensor | Sequence[Tensor], device: torch.device | str = "cpu"
    ) -> Tensor:
        """Resize the shorter edge, crop the centre, scale to [0, 1] and normalise.

        Args:
            images: uint8 (B, 3, H, W), or B tensors (3, H, W) of any sizes.
            device: computes, and holds the result.

        Returns:
            float32 (B, 3, size, size). Before normalisation, values differ by at most 1/255 from
            Pillow's. On a GPU a few pixels differ by up to 5/255: unlike Pillow and the CPU, it
            neither rounds nor clips between the two passes of a resize.
        """
        if isinstance(images, Tensor):
            square = self.square(images.to(device))
        else:
            parts = [self.square(image[None].to(device)) for image in images]
            square = torch.cat(parts) if parts else torch.empty(0, 3, self.size, self.size)
        std, mean = per_channel(self.std, device), per_channel(self.mean, device)
        return torch.addcmul(-mean / std, square.to(device).float(), 1 / (255 * std))

    def square(self, images: Tensor) -> Tensor:
        """Resize the shorter edge and crop the centre, on the device of the images.

        A CPU resizes bytes, which is many times as fast as floats; a GPU can only resize floats.

        Args:
            images: uint8 (B, 3, H, W).

        Returns:
            Levels from 0 to 255, (B, 3, size, size): uint8 on a CPU, else float32.
        """
        if not len(images):
            return images.new_empty(0, 3, self.size, self.size)
        shorter = min(images.shape[-2:])
        images = _centre(images, *(min(edge, LONGEST * shorter) for edge in images.shape[-2:]))
        height, width = images.shape[-2:]
        new = (self.resize * height // shorter, self.resize * width // shorter)
        if new != (height, width):
            levels = images if images.device.type == "cpu" else images.float()
            images = functional.interpolate(
                levels, new, mode=self.interpolation, align_corners=False, antialias=True
            ).clamp_(0, 255)
        return _centre(images, self.size, self.size)


def per_channel(values: Sequence[float], device: torch.device | str) -> Tensor:
    """Return float32 (C, 1, 1), filled on the device: a copy would wait for all queued work."""
    return torch.cat([torch.full((1, 1, 1), value, device=device) for value in values])


def _centre(images: Tensor, height: int, width: int) -> Tensor:
    """Return the middle of images (..., H, W)."""
    top, left = (
        round((edge - kept) / 2)
        for edge, kept in zip(images.shape[-2:], (height, width), strict=True)
    )
    return images[..., top : top + height, left : left + width]
