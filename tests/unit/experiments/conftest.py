"""Gives experiments a cache of their own, and removes objectives that they register."""

from collections.abc import Iterator

import pytest

from coopt_fl.registry import PARTS


@pytest.fixture(scope="package", autouse=True)
def features_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep features and unfinished trainings apart from the user's, and from other processes'."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COOPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the registered parts after each test."""
    monkeypatch.setattr(PARTS, "_parts", dict(PARTS._parts))
