"""A source whose images are encoded files' bytes, to be decoded one by one."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.data.decode import UndecodableError, decode
from coopt_fl.data.source import CorruptImage, Source


class EncodedSource(Source):
    """N encoded images of any sizes; ``image_size`` is given where they all have one."""

    def __init__(self, name: str, rows: int, image_size: tuple[int, int] | None = None) -> None:
        super().__init__(name, rows, encoded=True, image_size=image_size)

    def _read(self, ids: NDArray[np.int64]) -> list[Tensor]:
        return [self._decoded(id) for id in ids.tolist()]

    def file_bytes(self, id: int) -> bytes:
        """Return the image's file as it is; CorruptImage where it cannot be read."""
        try:
            return self._bytes(id)
        except OSError as error:
            reason = error.strerror or "it cannot be read"
            raise CorruptImage(id, self.where(id), reason) from error

    def _decoded(self, id: int) -> Tensor:
        try:
            return decode(self.file_bytes(id))
        except UndecodableError as error:
            raise CorruptImage(id, self.where(id), str(error)) from error

    @abstractmethod
    def _bytes(self, id: int) -> bytes:
        """Return the file's bytes; an OSError says that this one image cannot be read."""
