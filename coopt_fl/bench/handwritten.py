"""Optimization against a typical handwritten loop: DataLoader, Pillow, torchvision, model.

ReLA and clip-retrieval compute targets that way. The loop runs in a process of its own and shares
none of our settings except the number of threads. It has an advantage: it only keeps the features,
without projection, alignment, float16 and checks.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import Any

import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from coopt_fl.bench.inputs import KINDS, pictures
from coopt_fl.bench.measure import Case, Reach, Row, Seconds, in_turn, spread
from coopt_fl.bench.optimization import SETTINGS, Setting, label, missing, path
from coopt_fl.bench.process import children, together
from coopt_fl.core.runtime import compute
from coopt_fl.priors import Prior, load_prior

REPEATS = 3
ROWS = 1024
WARM = 4
"""Batches of warm-up, which are not timed."""

CASES = (
    ("array", "lite0", "lite0", None),
    ("jpeg-folder", "lite0", "lite0", None),
    ("parquet", "lite0", "lite0", None),
    ("array", "lite0-bfloat16", "lite0", Reach(2.5)),
    ("array", "lite0-bfloat16", "lite0-bfloat16", Reach(1.5)),
    ("array", "resnet50", "resnet50", Reach(3.0)),
    ("array", "vit-b-32", "vit-b-32", Reach(3.0)),
    ("parquet", "resnet50", "resnet50", Reach(3.0)),
    ("jpeg-folder", "resnet50", "resnet50", None),
)
"""Kind of source, our setting, the loop's setting, expected ratio."""


def handwritten() -> Iterator[Row]:
    """Yield a row for each case."""
    for kind, name, other, reach in CASES:
        setting = SETTINGS[name]
        case = Case(
            f"handwritten/{kind}/{name}" + ("" if other == name else f"-over-{other}"),
            f"optimize end to end, {KINDS[kind]}, {label(setting)}",
            "a DataLoader, Pillow, torchvision's transforms and the model, as written today, "
            f"{SETTINGS[other].precision}",
            reach,
        )
        if reason := missing(setting):
            yield case.skipped(reason)
            continue
        prior = load_prior(setting.prior, setting.device, setting.precision)
        with (
            pictures(kind, ROWS) as (source, _),
            children([partial(_measuring, kind, other)]) as theirs,
            compute(1),
        ):
            ours = path(prior, source, setting)
            whole, written = in_turn(ours, lambda: together(theirs)[0], REPEATS)
        yield case.measured(
            spread(written / whole),
            samples_per_s=spread(setting.rows / whole),
            handwritten_samples_per_s=spread(setting.rows / written),
        )


class Images(Dataset[Any]):
    """A dataset of ``rows`` transformed images, which repeats those of ``origin``."""

    def __init__(self, kind: str, origin: Any, transform: Any, rows: int) -> None:
        self._kind, self._origin, self._transform = kind, origin, transform
        self._rows = rows
        if kind == "jpeg-folder":
            self._origin = sorted(origin.rglob("*.jpg"))
        if kind == "parquet":
            self._origin = pq.read_table(origin).column("image")

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> Any:
        encoded = self._origin[row % len(self._origin)]
        if self._kind == "array":
            return self._transform(Image.fromarray(encoded))
        file = BytesIO(encoded.as_py()) if self._kind == "parquet" else encoded
        return self._transform(Image.open(file).convert("RGB"))


def loop(prior: Prior, setting: Setting, images: Images) -> Seconds:
    """Return the handwritten loop; timing starts after warm-up, once its workers are running."""
    reduced, dtype = setting.precision != "float32", getattr(torch, setting.precision)

    def seconds() -> float:
        loader = DataLoader(
            images,
            setting.batch_size,
            shuffle=True,
            num_workers=min(4, os.cpu_count() or 1),
            pin_memory=setting.device == "cuda",
            multiprocessing_context="fork",  # Linux's default, but not in a spawned process
        )
        found = []
        with torch.inference_mode(), torch.autocast(setting.device, dtype, enabled=reduced):
            for step, batch in enumerate(loader):
                features = prior.model(batch.to(setting.device, non_blocking=True))
                found.append(features.float().cpu())
                if step == WARM - 1:
                    started = time.perf_counter()
        return time.perf_counter() - started

    return seconds


def _transform(prior: Prior) -> Any:
    from torchvision import transforms

    own = prior.preprocess
    return transforms.Compose(
        [
            transforms.Resize(own.resize, transforms.InterpolationMode(own.interpolation)),
            transforms.CenterCrop(own.size),
            transforms.ToTensor(),
            transforms.Normalize(own.mean, own.std),
        ]
    )


@contextmanager
def _measuring(kind: str, name: str) -> Iterator[Seconds]:
    """Yield the loop; called in a process of its own."""
    setting = SETTINGS[name]
    prior = load_prior(setting.prior, setting.device)
    rows = setting.rows + WARM * setting.batch_size
    with pictures(kind, ROWS) as (_, origin):
        torch.set_num_threads(1)
        yield loop(prior, setting, Images(kind, origin, _transform(prior), rows))
