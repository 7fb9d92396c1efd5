"""Per-row clipping and Gaussian noise of what participants upload, with DP accounting.

Given a prior and an alignment, a row of features or of targets depends on one image alone, and
alignments are fitted on rows that were already released. So every row that leaves a participant is
one Gaussian mechanism. Adjacency: one image is replaced by another; both rows lie in the ball of
radius C = clip * sqrt(width), so they are at most 2 C apart.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.config.schema import PrivacyConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.extras import install_hint

Ids = NDArray[np.int64]
Rows = NDArray[np.float32]

ADJACENCY = "one image replaced by another"
SENSITIVITY = 2.0
"""Largest distance between the rows of two images, over the largest norm of a row."""

SECRET_BYTES = 32
HALF_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Guard:
    """Releases rows: clips them, and adds noise that only the holder of the secret can reproduce.

    Attributes:
        clip: largest norm of a row, divided by the root of its width.
        noise_multiplier: standard deviation of an entry's noise, divided by the largest norm of a
            row.
        secret: the participant's secret. Empty in simulation, where nothing is protected: anyone
            can test a guess of a row.
    """

    clip: float
    noise_multiplier: float
    secret: bytes = field(repr=False)

    def release(self, rows: Rows, ids: Ids, *function: str) -> Rows:
        """Return ``rows`` (R, w) of the samples ``ids`` (R,), clipped and noised, float32.

        Clipping and adding are done in float64, rounding last. A row's noise is derived from the
        secret, the settings, ``function``, the sample and the row itself. So a row is released as
        the same bits however often and with whichever others it is requested, and any other row
        has independent noise: subtracting two releases cannot cancel it.

        Args:
            rows: finite float32 values.
            ids: their samples.
            function: identifies what was computed from the images: the kind of rows, the
                participant, the sha256 of the prior and, for targets, of the alignment.
        """
        largest = self.clip * math.sqrt(rows.shape[1])
        released = rows.astype(np.float64)
        norms = np.linalg.norm(released, axis=1, keepdims=True)
        released *= largest / np.maximum(norms, largest)
        if self.noise_multiplier > 0:
            words = [self.secret.hex(), self.clip, self.noise_multiplier, *function]
            key = hashlib.sha256(json.dumps(words).encode()).digest()
            released += self.noise_multiplier * largest * _gaussian(key, rows, ids)
        return released.astype(np.float32)


def normalise(features: Tensor) -> Tensor:
    """Return ``features`` (B, m), float32, with every row of norm sqrt(m); a row of zeros stays.

    The result for a row depends on no other image. Afterwards one clip fits features and targets,
    since the entries of both have about unit RMS.
    """
    x = features.double()  # squares of float32 values neither overflow nor underflow in float64
    norms = x.norm(dim=1, keepdim=True)
    return (x * (math.sqrt(x.shape[1]) / torch.where(norms > 0, norms, 1.0))).float()


def half(rows: Rows) -> NDArray[np.float16]:
    """Return released rows as float16; the rare entry beyond its range is clipped to it."""
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


def _gaussian(key: bytes, rows: Rows, ids: Ids) -> NDArray[np.float64]:
    """Return standard normal numbers (R, w), each row's from SHAKE-256 of key, id and row."""
    numbers, plain = ids.astype("<i8"), np.ascontiguousarray(rows, "<f4")
    stream = b"".join(
        hashlib.shake_256(key + number.tobytes() + row.tobytes()).digest(8 * len(row))
        for number, row in zip(numbers, plain, strict=True)
    )
    return normal_numbers(stream).reshape(rows.shape)


def normal_numbers(stream: bytes) -> NDArray[np.float64]:
    """Return one standard normal number for every 8 uniformly random bytes, at most 8.2 from 0."""
    from scipy.special import ndtri  # takes a quarter of a second to import

    # 52 bits and a half are exact in float64, so that neither 0 nor 1 occurs
    uniform = ((np.frombuffer(stream, "<u8") >> 12) + 0.5) * 2.0**-52
    normal: NDArray[np.float64] = ndtri(uniform)
    return normal


def check(privacy: PrivacyConfig, dim: int) -> None:
    """Check, before any work, that the settings can be used for targets of width ``dim``.

    Raises:
        ConfigError: noise without a clip, noise that float16 cannot hold, or dp-accounting is not
            installed.
    """
    if privacy.clip is None:
        if privacy.noise_multiplier > 0:
            raise ConfigError("privacy.noise_multiplier needs privacy.clip: set it, 0.1 is a start")
        return
    # beyond 8 standard deviations, one entry in 10^15, half() clips
    largest = privacy.clip * math.sqrt(dim) * (1 + 8 * privacy.noise_multiplier)
    if largest > HALF_MAX:
        raise ConfigError(
            f"targets of width {dim} with noise reach {largest:.0f}, which float16 cannot hold: "
            "lower privacy.clip or privacy.noise_multiplier"
        )
    if privacy.noise_multiplier > 0:
        _accountant()


def epsilon(noise_multiplier: float, releases: int, delta: float) -> float:
    """Return the epsilon of ``releases`` rows of one image; infinite without noise.

    Adaptively composed Gaussian mechanisms equal a single one of sqrt(releases) times the
    sensitivity (Dong, Roth & Su 2022, corollary 3.3), whose epsilon is known exactly (Balle & Wang
    2018, theorem 8).

    Raises:
        ConfigError: dp-accounting is not installed.
    """
    if releases == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    return float(_accountant()(noise_multiplier / (SENSITIVITY * math.sqrt(releases)), delta))


def count_releases(ids: Ids, uploads: Iterable[Ids]) -> NDArray[np.int64]:
    """Return, for each of the samples ``ids`` (N,), how often a row of it is released: (N,).

    Args:
        ids: all samples, ascending.
        uploads: the samples in each reply: a chunk with its audit rows, a prior's features of S, or
            the features that a projection is fitted on. A message sent again to the same
            participant counts once; sent to another one it counts twice.
    """
    counts = np.zeros(len(ids), np.int64)
    for uploaded in uploads:
        np.add.at(counts, np.searchsorted(ids, uploaded), 1)
    return counts


def summary(privacy: PrivacyConfig, counts: NDArray[np.int64]) -> dict[str, Any]:
    """Return the provenance's record of privacy, from the releases of each sample (N,).

    ``loss`` has one entry per number of releases: how many samples were released that often, and
    their epsilon at ``delta`` = 1 / (10 N), which is None without noise: there is no guarantee.

    Raises:
        ConfigError: dp-accounting is not installed.
    """
    delta = 1 / (10 * len(counts))
    loss = []
    for releases, samples in zip(*np.unique(counts, return_counts=True), strict=True):
        lost = epsilon(privacy.noise_multiplier, int(releases), delta)
        loss.append(
            {
                "releases": int(releases),
                "samples": int(samples),
                "epsilon": lost if math.isfinite(lost) else None,
            }
        )
    return {
        "clip": privacy.clip,
        "noise_multiplier": privacy.noise_multiplier,
        "adjacency": ADJACENCY,
        "delta": delta,
        "loss": loss,
    }


def _accountant() -> Callable[[float, float], float]:
    """Return the function (sigma, delta) -> epsilon of a Gaussian mechanism of sensitivity 1."""
    try:
        # imported here, since it takes seconds
        from dp_accounting import get_epsilon_gaussian  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(f"privacy needs one more package: {install_hint('privacy')}") from None
    return get_epsilon_gaussian  # type: ignore[no-any-return]
