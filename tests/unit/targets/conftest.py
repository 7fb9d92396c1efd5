from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coopt_fl.core.runtime import compute
from coopt_fl.data.image import Preprocess
from coopt_fl.data.source import CorruptImage, Source
from coopt_fl.priors import Prior

Matrix = NDArray[np.float64]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with compute(1):
        yield


@dataclass
class Latent:
    """Rows that several priors see, each through its own linear map with noise."""

    rng: np.random.Generator
    z: Matrix

    def seen(self, width: int, noise: float = 0.1) -> Matrix:
        scale = self.z.shape[1] ** -0.5
        through = self.z @ self.rng.standard_normal((self.z.shape[1], width)) * scale
        return through + noise * self.rng.standard_normal(through.shape)


@pytest.fixture
def latent() -> Callable[..., Latent]:
    def make(rows: int, dim: int = 6, seed: int = 0) -> Latent:
        rng = np.random.default_rng(seed)
        return Latent(rng, rng.standard_normal((rows, dim)))

    return make


class Pictures(Source):
    """Images whose every pixel is the id modulo 251; some cannot be decoded, some are larger."""

    def __init__(self, rows: int, corrupt: tuple[int, ...] = (), large: tuple[int, ...] = ()):
        super().__init__("pictures", rows)
        self.corrupt, self.large = set(corrupt), set(large)
        self.most_read = 0

    @property
    def fingerprint(self) -> str:
        return "pictures"

    def _read(self, ids: NDArray[np.int64]) -> list[Tensor]:
        self.most_read = max(self.most_read, len(ids))
        return [self._one(int(id)) for id in ids]

    def _one(self, id: int) -> Tensor:
        if id in self.corrupt:
            raise CorruptImage(id, self.where(id))
        side = 6 if id in self.large else 4
        return torch.full((3, side, side), id % 251, dtype=torch.uint8)


class Levels(nn.Module):
    """(B, 3, s, s) -> (B, 4): the mean level times 1, 2, 3, 4; records its batches."""

    def __init__(self, edit: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.edit, self.batches = edit, list[int]()

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        features = images.mean(dim=(1, 2, 3))[:, None] * torch.arange(1.0, 5.0)
        return self.edit(features) if self.edit else features


@pytest.fixture
def prior() -> Callable[..., Prior]:
    def make(edit: Callable[[Tensor], Tensor] | None = None) -> Prior:
        zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        preprocess = Preprocess(4, 4, "bilinear", zero, one)
        return Prior("levels", 4, "0" * 64, preprocess, Levels(edit), torch.device("cpu"))

    return make
