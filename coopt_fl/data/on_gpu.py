"""Decode JPEG files on the GPU by nvJPEG through torchvision; pixels differ slightly from Pillow's.

Pillow decodes other formats, files with an EXIF rotation, and what nvJPEG refuses, image by image.
"""

import warnings
from collections.abc import Sequence
from importlib.metadata import version

import torch
from torch import Tensor

from coopt_fl.config.schema import MOST_PIXELS
from coopt_fl.core.errors import ConfigError
from coopt_fl.data.image import ORIENTATION, decode
from coopt_fl.data.opening import opened

JPEG = b"\xff\xd8\xff"
DEVICE = "cuda"
"""The current GPU."""


def require_gpu() -> None:
    """Raise ConfigError if there is no GPU."""
    if not torch.cuda.is_available():
        raise ConfigError(
            "data.decode=device needs an NVIDIA GPU, and this process sees none: "
            "set it to exact or reduced"
        )


def gpu_decoder() -> str:
    """Return the versions of the libraries that decode on the GPU."""
    return f"nvJPEG of CUDA {torch.version.cuda}, torchvision {version('torchvision')}"


def decode_on_gpu(encoded: Sequence[bytes], most_pixels: int = MOST_PIXELS) -> list[Tensor]:
    """Decode image files of at most ``most_pixels`` to uint8 RGB (3, H, W) on the GPU.

    Raises:
        UndecodableError: Pillow cannot decode one of them either.
    """
    places = [place for place, file in enumerate(encoded) if _is_plain(file, most_pixels)]
    jpegs = [torch.frombuffer(bytearray(encoded[place]), dtype=torch.uint8) for place in places]
    try:
        found = dict(zip(places, _decoded(jpegs), strict=True))
    except RuntimeError as error:  # one file fails the whole call, and is not named
        if isinstance(error, torch.OutOfMemoryError):
            raise
        if len(encoded) > 1:
            return [image for one in encoded for image in decode_on_gpu([one], most_pixels)]
        found = {}
    return [
        found[place] if place in found else decode(file, None, most_pixels).to(DEVICE)
        for place, file in enumerate(encoded)
    ]


def _is_plain(file: bytes, most_pixels: int) -> bool:
    """Tell whether a file is a JPEG without an EXIF rotation, and not too large."""
    if not file.startswith(JPEG):
        return False
    try:
        with opened(file, most_pixels) as image:
            return bool(image.getexif().get(ORIENTATION, 1) == 1)
    except Exception:  # Pillow will decode it, and raise this again
        return False


def _decoded(jpegs: list[Tensor]) -> list[Tensor]:
    from torchvision.io import ImageReadMode, decode_jpeg  # takes as long to import as torch

    if not jpegs:
        return []
    with warnings.catch_warnings():  # torchvision warns that this will move to TorchCodec
        warnings.simplefilter("ignore")
        images: list[Tensor] = decode_jpeg(jpegs, mode=ImageReadMode.RGB, device=DEVICE)
    return images
