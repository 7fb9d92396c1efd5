"""Optimization from the source to the disk, by one participant and by several concurrently.

One participant is compared with the bare model on a batch in memory, several with a single one.
The measurement is taken from the middle of a long run, after the worker processes that decode
images, if any, have started.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl import targets
from coopt_fl.bench.inputs import KINDS, pictures, store
from coopt_fl.bench.measure import Case, Reach, Row, Seconds, in_turn, not_here, spread, timed
from coopt_fl.bench.process import children, together
from coopt_fl.core.link import Link
from coopt_fl.core.runtime import compute, has_bfloat16, keep_freed_memory, pick_device
from coopt_fl.data import Source
from coopt_fl.federation.state import RunState
from coopt_fl.priors import Prior, load_prior
from coopt_fl.targets import Alignment

REPEATS = 5
COMMON = {"cpu": "lite0", "cuda": "resnet50"}
"""The setting with which other work is compared, by device."""
LONG_RUN = 4096
"""Blocks of the run, of which only the first few are computed."""


@dataclass(frozen=True)
class Setting:
    """A prior and the settings of its optimization.

    Attributes:
        prior: the prior's specification.
        device: ``cpu`` or ``cuda``.
        batch_size: rows of a forward pass.
        block_rows: rows of a block.
        warm: blocks of warm-up, not timed.
        blocks: timed blocks.
        precision: ``float32`` or ``bfloat16``.
        dim: width D of a target.
    """

    prior: str
    device: str
    batch_size: int
    block_rows: int
    warm: int
    blocks: int
    precision: str
    dim: int

    @property
    def rows(self) -> int:
        """Number of timed samples."""
        return self.blocks * self.block_rows


def on_cpu(prior: str, precision: str = "float32") -> Setting:
    """Return the setting of ``conf/digits.yaml``, with fewer targets than on a GPU."""
    return Setting(f"timm:{prior}@bundled?size=96", "cpu", 32, 64, 3, 4, precision, 256)


def on_gpu(prior: str) -> Setting:
    """Return the setting of ``conf/cifar10.yaml``, with an untrained prior of 224 pixels."""
    return Setting(f"random:{prior}", "cuda", 256, 1024, 4, 8, "bfloat16", 512)


SETTINGS = {
    "lite0": on_cpu("tf_efficientnet_lite0"),
    "lite0-bfloat16": on_cpu("tf_efficientnet_lite0", "bfloat16"),
    "lite1": on_cpu("tf_efficientnet_lite1"),
    "lite2": on_cpu("tf_efficientnet_lite2"),
    "resnet50": on_gpu("resnet50"),
    "vit-b-32": on_gpu("vit_base_patch32_224"),
}
PLAN = {
    "array": ("lite0", "lite0-bfloat16", "lite1", "lite2", "resnet50", "vit-b-32"),
    "jpeg-folder": ("lite0", "resnet50", "vit-b-32"),
    "parquet": ("lite0", "resnet50", "vit-b-32"),
}
"""Settings that are measured on each kind of source."""

CROWDS = {
    "four-on-one-gpu": ("resnet50", ("cuda:0",) * 4, Reach(0.9)),
    "two-gpus": ("resnet50", ("cuda:0", "cuda:1"), Reach(1.9)),
    "two-cpu-shares": ("lite0", ("cpu", "cpu"), Reach(1.8)),
}
"""Concurrent participants: their setting, the device of each, the expected ratio."""
IN_WORDS = {
    "four-on-one-gpu": ("four participants sharing one GPU", "one participant with all of it"),
    "two-gpus": ("two participants, each with a GPU", "one participant with one GPU"),
    "two-cpu-shares": (
        "two participants, each with one CPU thread",
        "one participant with one CPU thread",
    ),
}


def optimize() -> Iterator[Row]:
    """Yield a row for each source and prior."""
    for kind, names in PLAN.items():
        with pictures(kind, 1024) as (source, _):
            for name in names:
                yield _row(kind, source, name)


def _row(kind: str, source: Source, name: str) -> Row:
    setting = SETTINGS[name]
    case = Case(
        f"optimize/{kind}/{name}",
        f"optimize end to end, {KINDS[kind]}, {label(setting)}",
        "forward passes alone, on a batch in memory",
        Reach(0.9),
    )
    if reason := missing(setting):
        return case.skipped(reason)
    prior = load_prior(setting.prior, setting.device, setting.precision)
    with compute(1):
        ours, bare = in_turn(path(prior, source, setting), roofline(prior, setting), REPEATS)
    return case.measured(
        spread(bare / ours),
        samples_per_s=spread(setting.rows / ours),
        roofline_samples_per_s=spread(setting.rows / bare),
    )


def sharing() -> Iterator[Row]:
    """Yield a row for each crowd: samples/s of all participants over those of one alone."""
    for name, (prior, devices, reach) in CROWDS.items():
        setting, (all_of_them, first) = SETTINGS[prior], IN_WORDS[name]
        case = Case(f"sharing/{name}", f"{all_of_them}, {label(setting)}", first, reach)
        if reason := not_here(*devices):
            yield case.skipped(reason)
            continue
        work = [partial(_participant, replace(setting, device=device)) for device in devices]
        with children(work) as participants:
            slowest, alone = in_turn(
                lambda: max(together(participants)),
                lambda: together(participants[:1])[0],
                REPEATS,
            )
        yield case.measured(
            spread(len(devices) * alone / slowest),
            samples_per_s=spread(len(devices) * setting.rows / slowest),
            alone_samples_per_s=spread(setting.rows / alone),
        )


@contextmanager
def _participant(setting: Setting) -> Iterator[Seconds]:
    """Yield the optimization of one participant on the images in memory."""
    prior = load_prior(setting.prior, setting.device, setting.precision)
    with pictures("array", 1024) as (source, _), compute(1):
        yield path(prior, source, setting)


def missing(setting: Setting) -> str | None:
    """Return the key of SKIPPED if a setting is not measured on this host, else None."""
    if reason := not_here(setting.device):
        return reason
    reduced = setting.device == "cpu" and setting.precision == "bfloat16"
    return "no-bfloat16" if reduced and not has_bfloat16() else None


def label(setting: Setting) -> str:
    """Return the setting in words."""
    name = setting.prior.partition(":")[2].partition("@")[0]
    return f"{name}, {setting.precision}, batches of {setting.batch_size}"


def path(prior: Prior, source: Source, setting: Setting, link: Link | None = None) -> Seconds:
    """Return a timed function that makes targets and stores them as the platform does."""
    keep_freed_memory()  # as a participant does
    blocks = long_run(source, setting)
    weight = np.random.default_rng(0).normal(size=(prior.width, setting.dim)) / prior.width
    alignment = Alignment(weight.astype(np.float32), np.zeros(setting.dim, np.float32), "")

    def seconds() -> float:
        stream = targets.optimize(
            prior,
            source,
            blocks,
            alignment,
            batch_size=setting.batch_size,
            precision=setting.precision,
            on_error="raise",
            link=link,
        )
        with tempfile.TemporaryDirectory() as folder:
            state = RunState(Path(folder))
            store(state, islice(stream, setting.warm))
            started = time.perf_counter()
            store(state, islice(stream, setting.blocks))
            return time.perf_counter() - started

    return seconds


def long_run(source: Source, setting: Setting) -> list[NDArray[np.int64]]:
    """Return the ids of the blocks of a run that is longer than the measurement."""
    numbers = np.arange(LONG_RUN * setting.block_rows) % len(source)
    return np.split(source.ids[numbers], LONG_RUN)


def roofline(prior: Prior, setting: Setting) -> Seconds:
    """Return a timed function that does only the forward passes for the same number of rows."""
    side = prior.preprocess.size
    ready = torch.rand(setting.batch_size, 3, side, side, device=prior.device)
    ready = ready.contiguous(memory_format=torch.channels_last)
    dtype, reduced = getattr(torch, setting.precision), setting.precision != "float32"

    def forward() -> None:
        with torch.inference_mode(), torch.autocast(prior.device.type, dtype, enabled=reduced):
            for _ in range(setting.rows // setting.batch_size):
                prior.model(ready)

    return timed(forward)


@contextmanager
def optimizing(samples: int) -> Iterator[Seconds]:
    """Yield a function that returns the seconds to optimize so many samples on this host.

    It measures the ``COMMON`` setting on an array and scales the time up.
    """
    setting = SETTINGS[COMMON[pick_device().type]]
    with _participant(setting) as work:
        yield lambda: work() * samples / setting.rows
