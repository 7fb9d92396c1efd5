from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A per-user cache of its own for each test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("COOPT_CACHE", str(folder))
    return folder
