"""What must hold on a GPU; without one, the same on the CPU, but for what only a GPU has."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coopt_fl.config.schema import Config, DataConfig, RuntimeConfig, StudentConfig
from coopt_fl.core.runtime import compute, pick_device
from coopt_fl.data import open_source
from coopt_fl.optimized.provenance import draft
from coopt_fl.optimized.read import OptimizedDataset
from coopt_fl.policies.audit import inconsistent
from coopt_fl.policies.evidence import spread
from coopt_fl.priors import load_prior
from coopt_fl.students.checkpoint import load_student
from coopt_fl.students.loop import Training
from coopt_fl.students.session import devices_for
from coopt_fl.students.train import train_student
from coopt_fl.targets.optimize import represent

PRIOR = "random:resnet18?size=64"
DATA = DataConfig(source="synthetic", limit=256)
CONFIG = Config(
    data=DATA,
    student=StudentConfig(model="convnet:8", epochs=2, batch_size=32, precision="float32"),
    runtime=RuntimeConfig(deterministic=True),
)
TARGET_WIDTH = 16

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def features(rows: Sequence[int], precision: str = "float32") -> NDArray[np.float32]:
    """Return features of the chosen images, on this process's device."""
    source, prior = open_source(DATA), load_prior(PRIOR, pick_device(), precision)
    ids = source.ids[np.asarray(rows)]
    with compute(1, deterministic=True):
        return represent(
            prior, source, ids, batch_size=32, precision=precision, on_error="raise"
        ).values


def dataset() -> OptimizedDataset:
    """Return random targets of the images."""
    source = open_source(DATA)
    targets = np.random.default_rng(0).normal(size=(len(source), TARGET_WIDTH)).astype(np.float16)
    known = draft(config=CONFIG, source={"fingerprint": source.fingerprint}, reference="best")
    nobody = np.zeros(len(source), np.int16)
    known = replace(known, dim=TARGET_WIDTH, rows=len(source))
    return OptimizedDataset(Path("in memory"), source.ids, targets, nobody, known)


def test_two_processes_that_share_a_device_find_the_bits_of_one() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        theirs = pool.submit(features, range(128, 256))
        found = np.concatenate([features(range(128)), theirs.result()])
    assert np.array_equal(found, features(range(256)))


def test_a_deterministic_training_repeats_to_the_bit(tmp_path: Path) -> None:
    weights = []
    for name in ("first", "second"):
        trained = train_student(dataset(), CONFIG, tmp_path / name, devices=1)
        weights.append(load_student(trained.checkpoint).model.state_dict())
    assert all(torch.equal(one, weights[1][name]) for name, one in weights[0].items())


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_audit_believes_a_gpu(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = features(range(256), precision).astype(np.float64)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    there = features(range(256)).astype(np.float64)
    weight = np.random.default_rng(0).normal(size=(here.shape[1], TARGET_WIDTH))
    there = there @ weight
    assert inconsistent(here @ weight, there, spread(there), precision) is None


@contextmanager
def no_waiting() -> Iterator[None]:
    """Raise RuntimeError where the program waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
@pytest.mark.parametrize("objective", ["regression", "simclr", "dcl", "moco", "byol"])
def test_no_step_waits_for_the_gpu(objective: str) -> None:
    """The means of an epoch are read once, at its end."""
    config = replace(CONFIG, student=replace(CONFIG.student, objective=objective))
    targets = dataset() if objective == "regression" else None
    with devices_for(config, 1) as fabric:
        training = Training(fabric, targets, open_source(DATA), config.student, "raise", seed=0)
        training.epoch(0)  # kernels are chosen, memory is found
        with no_waiting():
            training.steps(1)
