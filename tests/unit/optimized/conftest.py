import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from coopt_fl.federation.holding import open_state
from coopt_fl.federation.state import RunState
from coopt_fl.optimized import write as publish
from tests.unit.optimized import make
from tests.unit.optimized.make import BLOCK_ROWS, DIM, finish


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A per-user cache of its own for each test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("COOPT_CACHE", str(folder))
    return folder


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put three blocks into a file, so that seven blocks make three files."""
    monkeypatch.setattr(publish, "FILE_BYTES", 3 * BLOCK_ROWS * (2 * DIM + 10))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three files; tests must not change it."""
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "FILE_BYTES", 3 * BLOCK_ROWS * (2 * DIM + 10))
        finish(out)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, which tests may damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def dataset(run: Path) -> Path:
    return run / "dataset"


@pytest.fixture
def state(tmp_path: Path) -> RunState:
    """A run with all blocks, not published yet."""
    with open_state(tmp_path / "out", "key", asdict(make.config())) as state:
        make.fill(state, make.make_plan(), make.SKIPPED)
        return state
