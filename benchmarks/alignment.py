"""What uniformity, election and alignment cost, over what optimizing the data costs.

They depend on the shared set alone, so their share falls with the size of the data; it is given
for the digits and, at the throughput measured here, for 50,000 samples.
"""

import time
from typing import Any

import numpy as np

from benchmarks.timing import spread
from coopt_fl.config import load_config
from coopt_fl.data import open_source, shared_set
from coopt_fl.priors import load_prior
from coopt_fl.runtime import compute, pick_device
from coopt_fl.targets import consensus_targets, fit_alignment, represent
from strategies.reference import elect

REPEATS = 5
SAMPLES = {"digits": 1437, "cifar": 50_000}


def measure() -> dict[str, Any]:
    """Return seconds of each step at |S| = 256, n = 128, K = 3, and their share of the whole."""
    config = load_config("digits")
    source = open_source(config.data)
    shared = shared_set(source.ids, config.shared.size, config.seed)
    features, forward = {}, 0.0
    with compute(config.runtime.threads):
        for participant in config.participants:
            prior = load_prior(participant.prior, pick_device())
            options = {"precision": "float32", "on_error": "raise"}
            represent(prior, source, shared[:32], batch_size=32, **options)
            started = time.perf_counter()
            found = represent(prior, source, shared, batch_size=32, **options)
            forward += time.perf_counter() - started
            features[participant.name] = found.values
        seconds = [_fit(features, config.targets.dim) for _ in range(REPEATS)]
    per_sample = forward / (len(features) * len(shared))
    steps = {key: spread([one[key] for one in seconds]) for key in seconds[0]}
    whole = sum(step["median"] for step in steps.values())
    shares = {name: whole / (per_sample * rows) for name, rows in SAMPLES.items()}
    return {"seconds": steps, "forward_seconds_per_sample": per_sample, "share": shares}


def _fit(features: dict[str, np.ndarray], dim: int) -> dict[str, float]:
    started = time.perf_counter()
    elect(features, "consensus", dim, 0)
    elected = time.perf_counter()
    targets = consensus_targets(list(features.values()), dim)
    for one in features.values():
        fit_alignment(one, targets)
    return {
        "uniformity and election": elected - started,
        "consensus and alignment of all": time.perf_counter() - elected,
    }
