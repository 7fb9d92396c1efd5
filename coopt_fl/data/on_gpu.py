"""JPEG files decoded on the GPU, by nvJPEG through torchvision; its pixels are not quite Pillow's.

Everything else, and what nvJPEG refuses, is decoded by Pillow, whatever else is in a batch.
"""

import warnings
from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor

from coopt_fl.core.errors import ConfigError
from coopt_fl.data.image import decode

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
    return f"nvJPEG of CUDA {torch.version.cuda}, torchvision {torchvision.__version__}"


def decode_on_gpu(encoded: Sequence[bytes]) -> list[Tensor]:
    """Decode image files to uint8 RGB (3, H, W) on the GPU.

    Raises:
        UndecodableError: Pillow cannot decode one of them either.
    """
    places = [place for place, file in enumerate(encoded) if file.startswith(JPEG)]
    jpegs = [torch.frombuffer(bytearray(encoded[place]), dtype=torch.uint8) for place in places]
    try:
        found = dict(zip(places, _decoded(jpegs), strict=True))
    except RuntimeError as error:  # it says neither which one nor decodes the others
        if isinstance(error, torch.OutOfMemoryError):
            raise
        if len(encoded) > 1:
            return [image for one in encoded for image in decode_on_gpu([one])]
        found = {}
    return [
        found[place] if place in found else decode(file).to(DEVICE)
        for place, file in enumerate(encoded)
    ]


def _decoded(jpegs: list[Tensor]) -> list[Tensor]:
    from torchvision.io import ImageReadMode, decode_jpeg

    if not jpegs:
        return []
    with warnings.catch_warnings():  # torchvision plans to leave this to TorchCodec
        warnings.simplefilter("ignore")
        images: list[Tensor] = decode_jpeg(jpegs, mode=ImageReadMode.RGB, device=DEVICE)
    return images
