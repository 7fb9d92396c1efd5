"""The platform's side: settings that make sense, and what they guarantee."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import PrivacyConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.privacy.release import HALF_MAX

Ids = NDArray[np.int64]

ADJACENCY = "one image replaced by another"
SENSITIVITY = 2.0
"""Largest distance between the rows of two images, over the largest norm of a row."""


def check(privacy: PrivacyConfig, dim: int) -> None:
    """Check, before any work, that settings can be used for targets of width ``dim``.

    Raises:
        ConfigError: noise without a clip, noise that float16 cannot hold, or no accountant.
    """
    if privacy.clip is None:
        if privacy.noise_multiplier > 0:
            raise ConfigError("privacy.noise_multiplier needs privacy.clip: set it, 0.1 is a start")
        return
    # farther out than 8 standard deviations half() cuts one entry in 10^15
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

    Gaussian mechanisms, each chosen in knowledge of what the others released, are together one
    of sqrt(releases) times the sensitivity (Dong, Roth & Su 2022, corollary 3.3), whose epsilon
    is known exactly (Balle & Wang 2018, theorem 8).

    Raises:
        ConfigError: dp-accounting is not installed.
    """
    if releases == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    return _accountant()(noise_multiplier / (SENSITIVITY * math.sqrt(releases)), delta)


def count_releases(ids: Ids, uploads: Iterable[Ids]) -> NDArray[np.int64]:
    """Return how often a row of each of the samples ``ids`` (N,), ascending, is released: (N,).

    Args:
        ids: all samples.
        uploads: the samples in each message's answer: a chunk with its audit rows, a prior's
            features of S, or those that a projection is fitted on. A message that is sent again
            to the same participant counts once, to another one twice.
    """
    counts = np.zeros(len(ids), np.int64)
    for uploaded in uploads:
        np.add.at(counts, np.searchsorted(ids, uploaded), 1)
    return counts


def summary(privacy: PrivacyConfig, counts: NDArray[np.int64]) -> dict[str, Any]:
    """Return what the provenance says of privacy, from the releases of each sample (N,).

    ``loss`` has one entry per number of releases: how many samples were released so often, and
    their epsilon at ``delta`` = 1 / (10 N); None without noise, where there is no guarantee.

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
    """Return sigma, delta -> epsilon of the Gaussian mechanism of sensitivity 1."""
    try:
        # imported here, for it takes seconds
        from dp_accounting import get_epsilon_gaussian  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(
            "privacy needs one more package: pip install 'coopt-fl[privacy]'"
        ) from None
    return lambda sigma, delta: float(get_epsilon_gaussian(sigma, delta))
