"""Features that are computed once for each host and kept, with the seconds that they took."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl.core.cache import cache_dir, cached
from coopt_fl.core.runtime import devices, pick_device
from coopt_fl.data import open_source
from coopt_fl.priors import load_prior
from coopt_fl.targets import represent
from experiments.agreement import Array
from experiments.clocks import Stopwatch
from experiments.scales import Study


def hardware() -> dict[str, str]:
    """Return this host's hardware; of several GPUs only the first, because only that is used."""
    found = devices()
    return found | {"GPUs": found["GPUs"].partition(", ")[0]}


def features_of(spec: str, study: Study, split: str) -> tuple[NDArray[np.float32], float]:
    """Return a prior's features (N, m) of a split, and the seconds that they took on this host.

    They are computed once and kept in the cache. Concurrent experiments compute features one after
    another, because they would share the cores that decode images. The seconds are those of a
    :class:`Stopwatch`, without processes that decode images beside this one.
    """
    prior = load_prior(spec, pick_device(), study.precision)
    source = open_source(study.data, split)
    size = 32 if prior.device.type == "cpu" else 256
    return kept(
        f"{prior.sha256} {source.fingerprint}",
        spec,
        study.precision,
        lambda: represent(prior, source, source.ids, batch_size=size,
                          precision=study.precision, on_error="raise").values,
    )  # fmt: skip


def kept(
    of: str, spec: str, precision: str, compute: Callable[[], Array]
) -> tuple[NDArray[np.float32], float]:
    """Return features and the seconds that they took, from the cache if it has them.

    Args:
        of: Identifies the prior's weights and the images.
        spec: The prior's specification.
        precision: Precision of the prior.
        compute: Computes the features (N, m).
    """
    on = hardware() | {"device": pick_device().type, "threads": torch.get_num_threads()}
    key = f"{spec} {of} {on} {precision}"
    file = cache_dir() / "features" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"

    def load() -> tuple[NDArray[np.float32], float]:
        with np.load(file) as known:
            return known["features"], float(known["seconds"])

    def make(path: Path) -> None:
        watch = Stopwatch()
        made = compute()
        seconds = watch.seconds
        with path.open("wb") as whole:  # given a name, numpy would append .npz to it
            np.savez(whole, features=made, seconds=seconds)

    return cached(file, load, make)
