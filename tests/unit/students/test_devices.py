"""Several devices: as many processes, each started from the same command line."""

import csv
import json
import math
import os
import subprocess
import sys
from unittest.mock import Mock

import pytest
import torch

from coopt_fl.api import train
from coopt_fl.config.schema import Config, StudentConfig
from coopt_fl.core import runtime
from coopt_fl.core.errors import ConfigError
from coopt_fl.students import session
from coopt_fl.students.checkpoint import load_student

TINY = (
    "data.source=synthetic data.limit=160 targets.dim=8 targets.projection=random shared.size=32 "
    "student.model=convnet:4 student.epochs=1 student.batch_size=32"
)

CURVE = 1e-3
"""Relative difference of two processes' mean loss of an epoch from that of one."""


def coopt(*arguments):
    """Return the JSON that the command ends with; one thread, for the host may have few cores."""
    done = subprocess.run(
        [sys.executable, "-m", "coopt_fl", *map(str, arguments), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        timeout=400,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0 and len(lines) == 1, done.stdout
    return json.loads(lines[0])


@pytest.mark.e2e
@pytest.mark.xdist_group("programs")
def test_two_processes_train_the_student_that_one_trains(tmp_path):
    """Each takes half of every batch. Without batch norm, of a half, only rounding differs."""
    coopt("centralized", "--prior", "trivial:16", "digits", *TINY.split(), "--out", tmp_path)
    exact = ["student.model=timm:test_vit", "student.head=linear", "student.precision=float32"]
    settings, out = [*exact, "student.epochs=3", "tracker=csv"], tmp_path / "two"
    trained = coopt("train", tmp_path, *settings, "--devices", "2", "--out", out)
    with runtime.compute(1):
        alone = train(tmp_path, settings, out=tmp_path / "one", devices=1, progress=None)
    assert trained["loss_per_epoch"] == pytest.approx(alone["loss_per_epoch"], rel=CURVE)
    assert len(set(alone["loss_per_epoch"])) == 3
    files = [".lock", "checkpoint.pt", "log.txt", "tracking"]
    assert sorted(path.name for path in out.iterdir()) == files
    with (out / "tracking" / "csv" / "metrics.csv").open() as file:  # the first process alone
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    assert rows == [*enumerate(trained["loss_per_epoch"], 1)]
    student = load_student(out / "checkpoint.pt")
    assert student.meta["epochs"] == 3 and student.meta["curve"][-1]["loss"] < 1
    again = coopt("train", tmp_path, *settings, "--devices", "2", "--out", out)
    assert again == trained


@pytest.mark.e2e
@pytest.mark.xdist_group("programs")
@pytest.mark.parametrize("objective", ["moco", "swav", "dino"])
def test_two_processes_train_one_seed_after_another(tmp_path, objective):
    """Whether the teacher's batch is shuffled among them, or some weights wait for their turn."""
    tiny = "data.source=synthetic data.limit=160 shared.size=32 student.model=convnet:2"
    arguments = ("pretrain", "digits", *tiny.split(), "student.epochs=2", "student.batch_size=32")
    found = coopt(
        *arguments, "--objective", objective, "--seeds", "2", "--devices", "2", "--out", tmp_path
    )
    assert [one["seed"] for one in found["seeds"]] == [0, 1]
    assert all(math.isfinite(point["loss"]) for one in found["seeds"] for point in one["curve"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt", "seed-0", "seed-1"]


def with_gpus(monkeypatch, count):
    """Pretend that there are GPUs; return what Fabric is asked for."""
    asked = {}

    def fabric(**settings):
        asked.update(settings)
        return Mock(world_size=1)

    monkeypatch.setattr(session, "pick_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr("lightning.fabric.Fabric", fabric)
    return asked


@pytest.mark.parametrize(
    ("gpus", "strategy"), [(1, "auto"), (2, "ddp_find_unused_parameters_true")]
)
def test_one_gpu_needs_no_ddp_whatever_the_objective(monkeypatch, gpus, strategy):
    """It would cost time that other objectives do not spend, and leave a process group behind."""
    asked = with_gpus(monkeypatch, gpus)
    with session.devices_for(Config(), "auto", staged=True):
        assert (asked["devices"], asked["strategy"]) == (gpus, strategy)


@pytest.mark.parametrize("devices", [-1, 0])
def test_fewer_devices_than_one_are_refused(devices):
    with (
        pytest.raises(ConfigError, match=f"--devices is {devices}; give at least 1"),
        session.devices_for(Config(), devices),
    ):
        pass


def test_more_gpus_than_there_are_are_refused(monkeypatch):
    with_gpus(monkeypatch, 2)
    with (
        pytest.raises(ConfigError, match=r"--devices is 3, but this host has 2 GPU\(s\)"),
        session.devices_for(Config(), 3),
    ):
        pass


@pytest.mark.parametrize("tasks", [["NTASKS"], ["NTASKS", "NTASKS_PER_NODE"]])
def test_what_slurm_sets_is_no_concern_of_a_training(tasks, monkeypatch):
    for name in tasks:
        monkeypatch.setenv(f"SLURM_{name}", "4")
    for name in ("JOB_NAME", "JOB_ID", "PROCID", "LOCALID", "NODEID"):
        monkeypatch.setenv(f"SLURM_{name}", "1")
    with session.devices_for(Config(), 1) as fabric:
        assert fabric.world_size == 1 and fabric.is_global_zero


@pytest.fixture
def notebook(monkeypatch):
    """What Fabric takes for a notebook: there it forks, which takes a function to run."""
    monkeypatch.setattr("sys.ps1", ">>> ", raising=False)
    monkeypatch.setattr("lightning.fabric.connector._IS_INTERACTIVE", True)


def test_a_notebook_uses_one_of_several_gpus(notebook, monkeypatch):
    asked = with_gpus(monkeypatch, 2)
    with session.devices_for(Config(), "auto"):
        assert (asked["devices"], asked["strategy"]) == (1, "auto")


def test_a_notebook_computes_on_the_cpu_and_refuses_several_processes(notebook):
    with session.devices_for(Config(), "auto") as fabric:
        assert fabric.world_size == 1
    with (
        pytest.raises(
            ConfigError, match=r"2 devices cannot be used from a notebook.* command line"
        ),
        session.devices_for(Config(), 2),
    ):
        pass


@pytest.mark.parametrize(
    ("wanted", "has", "used"),
    [
        ("auto", True, torch.float32),
        ("auto", False, torch.float32),
        ("float32", True, torch.float32),
        ("bfloat16", True, torch.bfloat16),
    ],
)
def test_the_precision_of_a_student_on_a_cpu(monkeypatch, wanted, has, used):
    monkeypatch.setattr(runtime, "has_bfloat16", lambda: has)
    assert session.training_dtype(Config(student=StudentConfig(precision=wanted))) == used
