"""Optimization throughput over the forward-only roofline of the same prior.

The roofline is the bare model on one batch that lies ready, preprocessed, on the device. What
optimization adds is decoding, resizing, normalising, aligning, the cast to float16 and checks.
"""

from typing import Any

import numpy as np
import torch

from benchmarks.timing import paired
from coopt_fl.config import load_config
from coopt_fl.data import make_blocks, open_source
from coopt_fl.priors import load_prior
from coopt_fl.runtime import compute, pick_device
from coopt_fl.targets import Alignment, optimize

REPEATS = 7
BLOCKS = 4


def measure() -> dict[str, Any]:
    """Return the ratio for each prior of the default configuration."""
    config = load_config("digits")
    with compute(config.runtime.threads):
        return {
            participant.prior: _of_prior(
                participant.prior, config.optimize.batch_size, config.targets.dim
            )
            for participant in config.participants
        }


def _of_prior(spec: str, batch_size: int, dim: int) -> dict[str, Any]:
    prior = load_prior(spec, pick_device())
    source = open_source(load_config("digits").data)
    blocks = make_blocks(source.ids, 2 * batch_size, 0)[:BLOCKS]
    rows = sum(map(len, blocks))
    weight = np.random.default_rng(0).normal(size=(prior.width, dim)).astype(np.float32)
    alignment = Alignment(weight / prior.width, np.zeros(dim, np.float32), 1.0, "benchmark")
    ready = torch.rand(batch_size, 3, prior.preprocess.size, prior.preprocess.size)
    ready = ready.to(prior.device, memory_format=torch.channels_last)

    def work() -> None:
        for _ in optimize(
            prior,
            source,
            blocks,
            alignment,
            batch_size=batch_size,
            precision="float32",
            on_error="raise",
        ):
            pass

    @torch.inference_mode()
    def roofline() -> None:
        for _ in range(rows // batch_size):
            prior.model(ready)
        if prior.device.type == "cuda":
            torch.cuda.synchronize()

    found = paired(work, roofline, REPEATS)
    return found | {"samples": rows, "samples_per_s": rows / found["seconds"]["median"]}
