"""The examples of docs/data.md."""

import re
from pathlib import Path

import pytest

from coopt_fl.config.schema import DataConfig
from coopt_fl.data import open_labels, open_source
from coopt_fl.data.source import copy_streams
from tests.fenced import python_in
from tests.unit.data.make import encode, parquet, pixels

PAGE = Path(__file__).parents[3] / "docs" / "data.md"
LISTED, STREAMED = python_in(PAGE.read_text())


def test_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(LISTED, str(PAGE), "exec"), {})
    (said,) = re.findall(r"\)  # (.*)", LISTED)
    assert capsys.readouterr().out.strip() == said


def test_the_stream(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    files = parquet(tmp_path / "x.parquet", [encode(pixels(0)), encode(pixels(1))], label=[4, 2])
    exec(compile(STREAMED, str(PAGE), "exec"), {"__name__": "__main__"})
    data = DataConfig("streamed", str(files))
    copy_streams(data, lambda split, done: None)
    assert len(open_source(data)) == 2
    assert open_labels(data, "train").tolist() == [4, 2]
