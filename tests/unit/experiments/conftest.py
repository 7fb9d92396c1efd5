"""Objectives that experiments register are gone after each test."""

import pytest

from coopt_fl.registry import PARTS


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin with the parts that there were, and leave no others."""
    monkeypatch.setattr(PARTS, "_parts", dict(PARTS._parts))
