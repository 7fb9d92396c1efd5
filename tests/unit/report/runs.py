"""Small real runs to report on: in one process, without Ray, in seconds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from flwr.supercore.task_identity import TaskIdentity
from PIL import Image

from coopt_fl.api import centralized
from coopt_fl.config.load import from_tree
from coopt_fl.config.schema import Config
from coopt_fl.core.progress import Progress
from coopt_fl.federation.job import whole_job
from coopt_fl.strategies import platform
from coopt_fl.strategies.platform import OpenDataPlatform
from coopt_fl.students.pretrain import pretrain
from tests.flower.grid import FakeGrid, tiny

STUDENT = {"student.model": "convnet:2", "student.epochs": 2, "probe.limit": 60}
AUDITED = {"audit.fraction": 0.1, "reference": "consensus"}


@dataclass(frozen=True)
class Runs:
    """Output directories.

    Attributes:
        full: three participants and a student.
        baseline: simclr on the same images, two seeds.
        ours: regression on the targets of ``full``, probed after every epoch.
        plain: one prior on images without labels.
    """

    full: Path
    baseline: Path
    ours: Path
    plain: Path


def make_runs(folder: Path) -> Runs:
    """Make all runs in ``folder``."""
    runs = Runs(*(folder / name for name in ("full", "simclr", "regression", "plain")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform, "is_simulated", lambda grid: True)
        config = tiny(**STUDENT, **AUDITED)
        whole_job(config, runs.full, Progress(), lambda: optimize(config, runs.full))
    baseline = tiny(**STUDENT, **{"student.objective": "simclr"})
    pretrain(baseline, None, runs.baseline, Progress(), seeds=2)
    pretrain(tiny(**STUDENT), runs.full, runs.ours, Progress())
    centralized(unlabeled(folder / "images"), prior="alpha", out=runs.plain, progress=None)
    return runs


def optimize(config: Config, out: Path) -> None:
    """Optimize with the real platform and participants, in this process."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    try:
        OpenDataPlatform(config, out).start(FakeGrid(len(config.participants)))
    finally:
        TaskIdentity._run_id = TaskIdentity._node_id = TaskIdentity._task_id = None


def unlabeled(folder: Path) -> Config:
    """Write 20 images without classes, and return a configuration that reads them."""
    (folder / "train").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(20):
        pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "train" / f"{number}.png")
    tree = {
        "data": {"source": "imagefolder", "root": str(folder)},
        "participants": [{"name": "alpha", "prior": "trivial:24"}],
        "shared": {"size": 8},
        "targets": {"dim": 8},
        "optimize": {"block_rows": 10, "batch_size": 10},
        "student": {"model": "convnet:2", "epochs": 1, "batch_size": 10},
    }
    return from_tree(tree, [], "unlabeled")
