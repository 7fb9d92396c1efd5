"""Features of a study's images: computed once for each prior, kept in the cache with their seconds.

Experiments at work at once compute theirs one after another, because they would share the cores
that decode images.
"""

import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.cache import cache_dir, cached
from coopt_fl.core.runtime import devices, pick_device
from coopt_fl.data import open_source
from coopt_fl.priors import load_prior
from coopt_fl.targets import represent


def hardware() -> dict[str, str]:
    """Return what computes here: of several GPUs the first, which alone is used."""
    found = devices()
    return found | {"GPUs": found["GPUs"].partition(", ")[0]}


def features_of(spec: str, data: DataConfig, split: str) -> tuple[NDArray[np.float32], float]:
    """Return a prior's features (N, m) of a split, and the seconds that they took here."""
    prior, source = load_prior(spec, pick_device()), open_source(data, split)
    on = hardware() | {"device": pick_device().type, "threads": torch.get_num_threads()}
    key = f"{spec} {prior.sha256} {source.fingerprint} {on}"
    file = cache_dir() / "features" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"

    def load() -> tuple[NDArray[np.float32], float]:
        with np.load(file) as known:
            return known["features"], float(known["seconds"])

    def make(path: Path) -> None:
        size = 32 if prior.device.type == "cpu" else 256
        started = time.perf_counter()
        made = represent(prior, source, source.ids, batch_size=size,
                         precision="float32", on_error="raise").values  # fmt: skip
        seconds = time.perf_counter() - started
        with path.open("wb") as whole:  # of a name alone numpy would make another
            np.savez(whole, features=made, seconds=seconds)

    return cached(file, load, make)
