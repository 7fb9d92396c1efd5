"""The log file beside a command's output."""

import re
import traceback
from pathlib import Path

import pytest

from coopt_fl.core.errors import DataError
from coopt_fl.core.log import LOG, log_of, logged
from coopt_fl.core.progress import Progress


def said(path: Path) -> list[str]:
    """Return the lines that begin with a time stamp, without the stamp."""
    stamp = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d) (.*)"
    return [
        found[2] for found in map(re.compile(stamp).match, path.read_text().splitlines()) if found
    ]


def test_each_attempt_is_appended_with_its_phases_warnings_and_end(tmp_path: Path) -> None:
    progress = Progress()
    with pytest.raises(DataError), logged(tmp_path / "new", progress), progress.phase("align"):
        progress.warn("few samples")
        raise DataError("no images")
    with logged(tmp_path / "new", progress), progress.phase("align"):
        pass
    with pytest.raises(KeyboardInterrupt), logged(tmp_path / "new", progress):
        raise KeyboardInterrupt
    progress.warn("nobody's")
    lines = said(tmp_path / "new" / LOG)
    assert [re.sub(r" took.*| process.*", "", line) for line in lines] == [
        *("coopt-fl 0.1.0 begins,", "align begins", "warning: few samples", "align"),
        "Traceback (most recent call last):",
        *("coopt-fl 0.1.0 begins,", "align begins", "align", "finished"),
        *("coopt-fl 0.1.0 begins,", "ended by KeyboardInterrupt"),
    ]
    assert "DataError: no images" in (tmp_path / "new" / LOG).read_text()


def test_an_error_knows_its_log_and_gets_one_in_the_cache_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(KeyError) as known, logged(tmp_path, Progress()):
        raise KeyError("planted")
    assert log_of(known.value) == tmp_path / LOG
    assert not (tmp_path / "cache").exists()
    unknown = ValueError("elsewhere")
    assert log_of(unknown) == log_of(unknown) == tmp_path / "cache" / LOG
    assert (tmp_path / "cache" / LOG).read_text().count("ValueError: elsewhere") == 1


def test_what_cannot_be_logged_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path / "file"))
    progress = Progress()
    with logged(tmp_path / "file", progress), progress.phase("align"):
        progress.warn("lost")
    with pytest.raises(KeyError) as error, logged(tmp_path / "file", progress):
        raise KeyError("planted")
    assert log_of(error.value) is None
    assert "planted" in traceback.format_exception(error.value)[-1]
