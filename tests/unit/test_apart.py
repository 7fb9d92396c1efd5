"""Running a function in a separate process, and how its errors are returned."""

import os
import sys
from pathlib import Path

import pytest

from coopt_fl.core.apart import run_apart
from coopt_fl.core.errors import CooptError, DataError

MODULE = """
from pathlib import Path
import os
from coopt_fl.core.errors import DataError

def work(place, words):
    Path(place).write_text(" ".join([*words, str(os.getpid())]))

def fail():
    raise DataError("there is nothing")

def interrupted():
    raise KeyboardInterrupt

def crash():
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is only on this process's path."""
    (tmp_path / "elsewhere.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])


def test_plain_values_go_in_and_the_work_is_done_elsewhere(tmp_path: Path) -> None:
    run_apart("elsewhere:work", place=str(tmp_path / "out"), words=["é", "b"])
    first, second, pid = (tmp_path / "out").read_text().split()
    assert (first, second) == ("é", "b")
    assert int(pid) != os.getpid()


def test_an_error_keeps_its_kind_and_its_sentence() -> None:
    with pytest.raises(DataError, match=r"^there is nothing$"):
        run_apart("elsewhere:fail")


def test_after_ctrl_c_no_traceback_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CooptError):
        run_apart("elsewhere:interrupted")
    assert "Traceback" not in capfd.readouterr().err


def test_a_process_that_dies_is_an_error() -> None:
    with pytest.raises(CooptError, match="elsewhere:crash failed"):
        run_apart("elsewhere:crash")
