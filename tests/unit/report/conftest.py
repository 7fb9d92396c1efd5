from pathlib import Path

import pytest

from coopt_fl.core.progress import Progress
from coopt_fl.report.page import write_report
from tests.unit.report.reading import Page, read
from tests.unit.report.runs import Runs


@pytest.fixture(scope="session")
def html(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of all runs."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    write_report([runs.full, runs.baseline, runs.ours, runs.plain], out, Progress())
    return out.read_text()


@pytest.fixture(scope="session")
def page(html: str) -> Page:
    """The same, as it is read."""
    return read(html)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "report.html"
