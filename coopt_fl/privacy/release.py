"""The participant's side: rows are clipped and noised before they leave."""

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from coopt_fl.core.errors import ConfigError

Ids = NDArray[np.int64]
Rows = NDArray[np.float32]

SECRET_BYTES = 32
HALF_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Guard:
    """Releases rows: clips them and adds noise that only who holds the secret can repeat.

    Attributes:
        clip: largest norm of a row, over the root of its width.
        noise_multiplier: standard deviation of an entry's noise, over the largest norm of a row.
        secret: the participant's own. Empty in simulation: then anyone can test a guess of a row,
            and nothing is protected.
    """

    clip: float
    noise_multiplier: float
    secret: bytes = field(repr=False)

    def release(self, rows: Rows, ids: Ids, *function: str) -> Rows:
        """Return ``rows`` (R, w) of the samples ``ids`` (R,), clipped and noised, float32.

        Clipping and adding are done in float64; rounding comes last. The noise of a row follows
        from the secret, the settings, ``function``, the sample and the row itself. So the same
        row is released as the same bits however often and with whichever others it is asked for,
        and anything else has noise of its own: no two releases can be subtracted.

        Args:
            rows: finite.
            ids: their samples.
            function: all that was done to the images: what the rows are and whose, the sha256 of
                the prior and, of targets, of the alignment.
        """
        largest = self.clip * math.sqrt(rows.shape[1])
        released = _clipped(rows, largest)
        if self.noise_multiplier > 0:
            words = [self.secret.hex(), self.clip, self.noise_multiplier, *function]
            key = hashlib.sha256(json.dumps(words).encode()).digest()
            released += self.noise_multiplier * largest * _gaussian(key, rows, ids)
        return released.astype(np.float32)


def normalise(features: Tensor) -> Tensor:
    """Return ``features`` (B, m), float32, with every row of norm sqrt(m); a row of zeros stays.

    What happens to a row depends on no other image. Afterwards one clip fits features and
    targets, for both have entries of about unit RMS.
    """
    x = features.double()  # in which no square of a float32 over- or underflows
    norms = x.norm(dim=1, keepdim=True)
    return (x * (math.sqrt(x.shape[1]) / torch.where(norms > 0, norms, 1.0))).float()


def half(rows: Rows) -> NDArray[np.float16]:
    """Return released rows as float16; the rare entry beyond its range becomes its largest."""
    return rows.clip(-HALF_MAX, HALF_MAX).astype(np.float16)


def read_secret(path: Path) -> bytes:
    """Return a participant's secret: the bytes of a file that nobody else may read.

    Raises:
        ConfigError: it cannot be read, others can read it, or it is shorter than 32 bytes.
    """
    try:
        secret, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        raise ConfigError(
            f"the secret {path} cannot be read ({error.strerror}): make it with "
            f"`(umask 077; head -c {SECRET_BYTES} /dev/urandom > {path})`"
        ) from None
    if mode & 0o077:
        raise ConfigError(f"others can read the secret {path}: make a new one, with umask 077")
    if len(secret) < SECRET_BYTES:
        raise ConfigError(f"the secret {path} has {len(secret)} bytes: give it {SECRET_BYTES}")
    return secret


def _clipped(rows: Rows, largest: float) -> NDArray[np.float64]:
    x = rows.astype(np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    clipped: NDArray[np.float64] = x * (largest / np.maximum(norms, largest))
    return clipped


def _gaussian(key: bytes, rows: Rows, ids: Ids) -> NDArray[np.float64]:
    """Return standard normal numbers (R, w), those of each row from SHAKE-256 of all it is."""
    numbers, plain = ids.astype("<i8"), np.ascontiguousarray(rows, "<f4")
    stream = b"".join(
        hashlib.shake_256(key + number.tobytes() + row.tobytes()).digest(8 * len(row))
        for number, row in zip(numbers, plain, strict=True)
    )
    return normal_numbers(stream).reshape(rows.shape)


def normal_numbers(stream: bytes) -> NDArray[np.float64]:
    """Return one standard normal number for every 8 uniformly random bytes, at most 8.2 from 0."""
    # 52 bits: the halves between them are exact, so that neither 0 nor 1 can come
    uniform = ((np.frombuffer(stream, "<u8") >> 12) + 0.5) * 2.0**-52
    normal: NDArray[np.float64] = ndtri(uniform)
    return normal
