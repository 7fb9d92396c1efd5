"""Starting Ray, whose own timeouts a busy host sometimes exceeds."""

import json
import logging
import os
import subprocess
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from coopt_fl import register
from coopt_fl.config.load import from_tree, load_config
from coopt_fl.core.errors import ConfigError, CooptError, ParticipantError
from coopt_fl.core.host import SHARE
from coopt_fl.core.progress import Progress
from coopt_fl.federation import backend, simulation
from coopt_fl.policies.assignment import BY_WEIGHT
from coopt_fl.registry import PARTS
from coopt_fl.targets.solvers import ridge

LATE = "The current node timed out during startup."


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_ray_that_starts_too_slowly_is_started_again(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = _slow(monkeypatch, failures)
    backend._start_ray({"num_cpus": 2})
    assert starts == [{"num_cpus": 2}] * (failures + 1)


def test_ray_that_never_starts_is_an_error_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = _slow(monkeypatch, failures=100)
    with pytest.raises(ParticipantError, match=f"in 3 attempts: {LATE}.*session_latest/logs"):
        backend._start_ray({})
    assert len(starts) == 3


def test_the_first_of_chained_errors_is_told() -> None:
    first = ValueError("no room in /dev/shm")
    second, third = RuntimeError("crashed"), RuntimeError("An error was encountered.")
    second.__cause__, third.__cause__ = first, second
    assert simulation._origin(third) is first
    assert simulation._origin(first) is first


def test_the_callers_environment_and_logging_are_left_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import flwr.supercore.logger  # noqa: F401, or it sets its level later

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "mine")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    logger = logging.getLogger("flwr")
    monkeypatch.setattr(logger, "level", logging.INFO)
    before, filters = dict(os.environ), list(warnings.filters)
    with pytest.raises(ValueError, match="whatever"), simulation._quiet():
        assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "mine"
        assert os.environ["PYTHONPATH"]
        assert logger.level == logging.CRITICAL
        raise ValueError("whatever")
    assert dict(os.environ) == before
    assert logger.level == logging.INFO
    assert warnings.filters == filters


@pytest.mark.parametrize("status", [0, 3])
def test_where_the_caller_uses_ray_the_simulation_has_a_process_of_its_own(
    status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[dict[str, Any]] = []

    def run(command: list[str], **settings: Any) -> subprocess.CompletedProcess[bytes]:
        assert command[3] == "coopt_fl.federation.simulation:simulate_job"
        started.append(json.loads(Path(command[4]).read_text()))
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    for end in ("init", "shutdown"):
        monkeypatch.setattr(ray, end, None)  # the caller's session stays as it is
    monkeypatch.setattr(subprocess, "run", run)
    config = load_config("digits", ["seed=7"])
    refused = pytest.raises(CooptError, match="failed in a process of its own")
    with refused if status else nullcontext():
        simulation.simulate(config, tmp_path / "out", Progress())
    (job,) = started
    assert from_tree(job["config"], [], "job") == config
    assert job["out"] == str(tmp_path / "out")


def _slow(monkeypatch: pytest.MonkeyPatch, failures: int) -> list[dict[str, Any]]:
    """Make Ray fail to start a number of times; return the arguments of each start."""
    starts: list[dict[str, Any]] = []

    def init(**settings: Any) -> None:
        starts.append(settings)
        if len(starts) <= failures:
            raise Exception(LATE)

    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(ray, "init", init)
    return starts


@pytest.mark.parametrize(("share", "fit"), [(0.1, 10), (0.3, 3), (1, 1), (0, 4)])
def test_as_many_actors_as_a_gpu_has_shares(
    share: float, fit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    people = [f"participants.{index}.name=p{index}" for index in range(12)]
    people += [f"participants.{index}.prior=trivial:8" for index in range(12)]
    settings = backend.backend(load_config("digits", [*people, f"simulation.gpus={share}"]))
    assert settings["init_args"]["num_cpus"] == fit


JOINED = "simulation.address=host:6379"


@pytest.mark.parametrize(("reserved", "used"), [("1", "1"), ("2.5", "2")])
def test_an_actor_of_a_cluster_uses_the_cores_that_it_reserves(reserved: str, used: str) -> None:
    settings = backend.backend(load_config("digits", [JOINED, f"simulation.cpus={reserved}"]))
    assert settings["init_args"]["runtime_env"]["env_vars"][SHARE] == used


def test_objects_of_the_program_do_not_go_to_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PARTS, "_parts", dict(PARTS._parts))
    register.solver("mine")(ridge)
    register.assignment("mine")(BY_WEIGHT)
    with PARTS.importing():
        register.projection("of_a_plugin")(ridge)
    backend.backend(load_config("digits", [JOINED, "targets.projection=of_a_plugin"]))
    backend.backend(load_config("digits", [JOINED, "assignment.by=mine"]))  # by the platform
    for key, made in {
        "targets.solver": "mine",
        "participants.0.prior": f"module:m@{'0' * 64}",
    }.items():
        config = load_config("digits", [f"{key}={made}"])
        assert backend.backend(config)["client_resources"]
        config.simulation.address = "host:6379"
        with pytest.raises(ConfigError, match=f"={made} is an object of this program, .* plugins"):
            backend.backend(config)
