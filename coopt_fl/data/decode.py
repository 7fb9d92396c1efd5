"""From the bytes of an image file to uint8 RGB."""

import io

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor


class UndecodableError(Exception):
    """These bytes are no image that Pillow can decode; the message says why."""


def decode(encoded: bytes) -> Tensor:
    """Return uint8 RGB (3, H, W); grey is repeated, 16-bit grey keeps its upper 8 bits.

    The channels lie innermost in memory, as the file has them and resizing wants them.

    Raises:
        UndecodableError: whatever is wrong with the bytes.
    """
    if not encoded:
        raise UndecodableError("it holds no bytes")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            pixels = _rgb(image)
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        reason = "it is no known image format"
        if not isinstance(error, UnidentifiedImageError):
            reason = f"{error or type(error).__name__}"
        raise UndecodableError(reason) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _rgb(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return (H, W, 3)."""
    if image.mode.startswith("I"):  # Pillow would clip 16 bits to 255 instead of scaling them
        grey = (np.asarray(image, dtype=np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return grey[..., None].repeat(3, axis=2)
    return np.array(image.convert("RGB"))
