"""The choice of devices, and refusals. Several processes are tested in tests/e2e."""

from unittest.mock import Mock

import pytest
import torch

from coopt_fl.config.schema import Config, StudentConfig
from coopt_fl.core import runtime
from coopt_fl.core.errors import ConfigError
from coopt_fl.students import session


def with_gpus(monkeypatch, count):
    """Pretend that there are GPUs; return the arguments of Fabric."""
    asked = {}

    def fabric(**settings):
        asked.update(settings)
        return Mock(world_size=1)

    monkeypatch.setattr(session, "pick_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr("lightning_fabric.Fabric", fabric)
    return asked


@pytest.mark.parametrize(
    ("gpus", "strategy"), [(1, "auto"), (2, "ddp_find_unused_parameters_true")]
)
def test_one_gpu_needs_no_ddp_whatever_the_objective(monkeypatch, gpus, strategy):
    """DDP would cost time that other objectives do not need, and leave a process group behind."""
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
    """Pretend to be in a notebook, where Fabric would fork and needs a function to run."""
    monkeypatch.setattr("sys.ps1", ">>> ", raising=False)
    monkeypatch.setattr("lightning_fabric.connector._IS_INTERACTIVE", True)


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
