"""JPEG files decoded on the GPU, by nvJPEG through torchvision; its pixels are not quite Pillow's.

Everything else, what is to be turned, and what nvJPEG refuses, is decoded by Pillow, whatever else
is in a batch.
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
"""The GPU that is current."""


def require_gpu() -> None:
    """Raise ConfigError where there is none."""
    if not torch.cuda.is_available():
        raise ConfigError(
            "data.decode=device needs an NVIDIA GPU, and this process sees none: "
            "set it to exact or reduced"
        )


def gpu_decoder() -> str:
    """Return what decodes there."""
    return f"nvJPEG of CUDA {torch.version.cuda}, torchvision {version('torchvision')}"


def decode_on_gpu(encoded: Sequence[bytes], most_pixels: int = MOST_PIXELS) -> list[Tensor]:
    """Decode image files of at most so many pixels to uint8 RGB (3, H, W) on the GPU.

    Raises:
        UndecodableError: Pillow cannot decode one of them either.
    """
    places = [place for place, file in enumerate(encoded) if _is_plain(file, most_pixels)]
    jpegs = [torch.frombuffer(bytearray(encoded[place]), dtype=torch.uint8) for place in places]
    try:
        found = dict(zip(places, _decoded(jpegs), strict=True))
    except RuntimeError as error:  # it says neither which one nor decodes the others
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
    """Tell whether a file is a JPEG that is as people see it, and not too large."""
    if not file.startswith(JPEG):
        return False
    try:
        with opened(file, most_pixels) as image:
            return bool(image.getexif().get(ORIENTATION, 1) == 1)
    except Exception:  # Pillow's, which decodes it, says what is wrong with it
        return False


def _decoded(jpegs: list[Tensor]) -> list[Tensor]:
    from torchvision.io import ImageReadMode, decode_jpeg  # which takes as long as torch to import

    if not jpegs:
        return []
    with warnings.catch_warnings():  # torchvision plans to leave this to TorchCodec
        warnings.simplefilter("ignore")
        images: list[Tensor] = decode_jpeg(jpegs, mode=ImageReadMode.RGB, device=DEVICE)
    return images
