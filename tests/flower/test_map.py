"""The map for newcomers: which files the images, features and targets of one block pass, in order.

One block of image files goes from ``coopt run`` to the probe, with the real platform and the real
participants. A file is *passed* when it is on the call stack while one of our functions is given,
or returns, an array, tensor or list of the block's rows (ids alone do not count), without those of
``coopt_fl/core``, which know nothing of the method, as a library's. The prior is a library's model.
Participants are on a thread of their own, as they are in a process of their own in a run.
"""

import dataclasses
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from flwr.app import Message
from PIL import Image

from coopt_fl.cli.main import app
from coopt_fl.config.schema import Config
from coopt_fl.core.progress import Progress
from coopt_fl.federation import simulation
from coopt_fl.strategies.platform import OpenDataPlatform
from tests.flower.grid import FakeGrid

ROOT = Path(__file__).parents[2]
OURS = tuple(f"{ROOT / folder}/" for folder in ("coopt_fl", "strategies"))
CORE = str(ROOT / "coopt_fl" / "core")
ROWS = 37
"""Rows of the block; no other array in this test has as many."""

MAP = """
coopt_fl/federation/client_app.py
coopt_fl/targets/optimize.py
coopt_fl/data/batches.py
coopt_fl/priors/prior.py
coopt_fl/data/image.py
coopt_fl/targets/alignment.py
coopt_fl/optimized/block.py
coopt_fl/federation/protocol.py
coopt_fl/cli/main.py
coopt_fl/api.py
coopt_fl/federation/job.py
strategies/platform.py
strategies/conversation.py
strategies/payloads.py
strategies/routes.py
coopt_fl/policies/audit.py
coopt_fl/policies/spreads.py
coopt_fl/federation/state.py
coopt_fl/optimized/write.py
coopt_fl/optimized/read.py
coopt_fl/students/train.py
coopt_fl/students/loop.py
coopt_fl/students/images.py
coopt_fl/students/augment/view.py
coopt_fl/students/objectives/objective.py
coopt_fl/students/models.py
coopt_fl/students/probe.py
coopt_fl/students/classifier.py
"""
MOST_FILES = 28


def test_one_block_passes_these_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "simulate", simulate)
    config = one_block(tmp_path)
    with tracing() as passed:
        app(["run", str(config), "--out", str(tmp_path / "out")], standalone_mode=False)
    assert list(passed) == MAP.split(), "\n".join(passed)
    assert len(passed) <= MOST_FILES


class Apart(FakeGrid):
    """A grid whose participants answer on another thread."""

    def _answer(self, message: Message) -> Message:
        with ThreadPoolExecutor(1) as participant:
            return participant.submit(super()._answer, message).result()


def simulate(config: Config, out: Path, progress: Progress) -> None:
    OpenDataPlatform(config, out, progress=progress).start(Apart(len(config.participants)))


def one_block(folder: Path) -> Path:
    """Write image files and a configuration in which they are one block."""
    rng = np.random.default_rng(0)
    for split, count in (("train", ROWS), ("val", 11)):
        for number in range(count):
            path = folder / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            colours = rng.integers(0, 256, (2, 2, 3), np.uint8)
            Image.fromarray(colours).resize((12, 12)).save(path)
    prior = "random:test_resnet?size=32"
    config = {
        "data": {"source": "imagefolder", "root": str(folder)},
        "participants": [{"name": name, "prior": prior} for name in ("alpha", "beta")],
        "shared": {"size": 16},
        "targets": {"dim": 8},
        "optimize": {"block_rows": 64, "batch_size": ROWS},
        "student": {"model": "convnet:4", "epochs": 1, "batch_size": ROWS, "image_size": 12},
    }
    file = folder / "one.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


@contextmanager
def tracing() -> Iterator[dict[str, None]]:
    """Yield the files that the block passes, in the order in which it first does."""
    passed: dict[str, None] = {}
    looking = threading.local()

    def look(frame: FrameType, event: str, value: Any) -> None:
        ours = event in ("call", "return") and frame.f_code.co_filename.startswith(OURS)
        if not ours or getattr(looking, "now", False):
            return
        looking.now = True  # what is looked at may call functions of ours
        code = frame.f_code
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        given = [value] if event == "return" else [frame.f_locals.get(name) for name in names]
        if any(map(holds, given)):
            passed.update(dict.fromkeys(reversed(list(stack(frame)))))
        looking.now = False

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        yield passed
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def stack(frame: FrameType | None) -> Iterator[str]:
    """Yield our files on the call stack, the innermost first."""
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(OURS) and not path.startswith(CORE):
            yield str(Path(path).relative_to(ROOT))
        frame = frame.f_back


def holds(value: Any, depth: int = 2) -> bool:
    """Whether a value is, or directly holds, the block's images, features or targets."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.ndim > 1 and len(value) == ROWS
    if isinstance(value, list | tuple):
        images = len(value) == ROWS and isinstance(value[0], torch.Tensor)
        inside: Any = value if len(value) < 2 * ROWS else ()
        return images or (depth > 0 and any(holds(item, depth - 1) for item in inside))
    if isinstance(value, dict):
        return depth > 0 and len(value) < 20 and any(holds(v, depth - 1) for v in value.values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return depth > 0 and any(holds(v, depth - 1) for v in vars(value).values())
    return False
