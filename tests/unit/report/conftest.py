from functools import partial
from pathlib import Path

import pytest
from openTSNE import TSNE

from coopt_fl.core.progress import Progress
from coopt_fl.report import tsne
from coopt_fl.report.page import write_report
from tests.unit.report.reading import Page, read
from tests.unit.report.runs import Runs


@pytest.fixture(scope="session")
def html(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The HTML of the page of all runs."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    write_report([runs.full, runs.baseline, runs.ours, runs.plain], out, Progress())
    return out.read_text()


@pytest.fixture(scope="session")
def page(html: str) -> Page:
    """The same page, parsed."""
    return read(html)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit the t-SNE of a test's own page to twenty steps; ``page`` has all steps."""
    monkeypatch.setattr(tsne, "TSNE", partial(TSNE, early_exaggeration_iter=20, n_iter=20))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "report.html"
