"""Removes objectives that experiments register, after each test."""

import pytest

from coopt_fl.registry import PARTS


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the registered parts after each test."""
    monkeypatch.setattr(PARTS, "_parts", dict(PARTS._parts))
