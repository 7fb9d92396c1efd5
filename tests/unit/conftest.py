from pathlib import Path

import pytest

from tests.unit.command import Coopt


@pytest.fixture
def coopt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Coopt:
    """The command line, in a folder and with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path / "cache"))
    return Coopt(monkeypatch, capsys, tmp_path)
