"""Flower stamps messages with the identity of the running task."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from threadpoolctl import ThreadpoolController

# Torch and Flower are imported by fixtures: the process that hands out tests needs neither.


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    """Set Flower's task identity. It is private API, so only this fixture touches it."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    yield
    TaskIdentity._run_id = TaskIdentity._node_id = TaskIdentity._task_id = None


@cache
def libraries() -> ThreadpoolController:
    """Return the libraries with threads; each of a run's 16 computations would look them up."""
    return ThreadpoolController()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the platform poll often, and let a grid say itself whether it is a simulation."""
    from coopt_fl.core import runtime
    from coopt_fl.strategies import conversation, exchange, platform

    monkeypatch.setattr(runtime, "threadpool_limits", lambda n: libraries().limit(limits=n))
    monkeypatch.setattr(conversation, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(platform, "is_simulated", lambda grid: grid.simulated)
    monkeypatch.setattr(exchange, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(exchange, "REMOTE_POLL_SECONDS", 0.01)


@pytest.fixture
def undisturbed(tmp_path_factory: pytest.TempPathFactory, identity: None, quick: None) -> Path:
    """The undisturbed tiny run, made once and shared; no test may change it."""
    from tests.flower.grid import run_platform, tiny

    out = tmp_path_factory.getbasetemp() / "whole"
    if not (out / "dataset" / "provenance.json").exists():
        run_platform(tiny(), out)
    return out
