"""Flower stamps messages with the identity of the running task."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.supercore.task_identity import TaskIdentity

from coopt_fl.strategies import conversation, exchange, platform
from tests.flower.grid import run_platform, tiny


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    """Set an identity; it is private API, hence touched only here."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    yield
    TaskIdentity._run_id = TaskIdentity._node_id = TaskIdentity._task_id = None


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the platform look often, and take a grid's own word for what it is."""
    monkeypatch.setattr(conversation, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(platform, "is_simulated", lambda grid: grid.simulated)
    monkeypatch.setattr(exchange, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(exchange, "REMOTE_POLL_SECONDS", 0.01)


@pytest.fixture
def undisturbed(tmp_path_factory: pytest.TempPathFactory, identity: None, quick: None) -> Path:
    """The tiny run that nothing disturbed, made once; no test may change it."""
    out = tmp_path_factory.getbasetemp() / "whole"
    if not (out / "dataset" / "provenance.json").exists():
        run_platform(tiny(), out)
    return out
