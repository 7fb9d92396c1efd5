"""A source whose images are already decoded, in one array in memory."""

import hashlib
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.data.source import Source


class ArraySource(Source):
    """Images of one size, held as uint8 (N, H, W) for grey or (N, H, W, 3) for RGB."""

    def __init__(self, name: str, images: NDArray[np.uint8]) -> None:
        height, width = images.shape[1:3]
        super().__init__(name, len(images), (height, width))
        self._images = images

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the array's shape and bytes."""
        digest = hashlib.sha256(f"array {self._images.shape}".encode())
        digest.update(np.ascontiguousarray(self._images).data)
        return digest.hexdigest()

    def _read(self, ids: NDArray[np.int64]) -> list[Tensor]:
        images = torch.from_numpy(self._images[ids])  # (B, H, W) or (B, H, W, 3), a copy
        if images.ndim == 3:
            return list(images.unsqueeze(1).expand(-1, 3, -1, -1))
        return list(images.permute(0, 3, 1, 2))
