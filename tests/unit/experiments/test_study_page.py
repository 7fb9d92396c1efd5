"""docs/tutorials/study.md: its commands and its table, in order, on less data."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from experiments.__main__ import main as tables
from experiments.command import run
from tests.fenced import fenced
from tests.unit.command import Coopt

PAGE = (Path(__file__).parents[3] / "docs" / "tutorials" / "study.md").read_text()
BLOCKS = fenced(PAGE, "sh", "python")
SMALL = ["data.limit=200", "shared.size=40", "student.epochs=1", "student.model=convnet:4"]
CENTRAL = ["--prior", "trivial:24", "targets.dim=16"]
"""Instead of a run, for one participant without Ray makes a dataset of the same format."""

pytestmark = pytest.mark.whole


def test_the_study_works_as_it_is_written(coopt: Coopt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(coopt.folder)
    names: dict[str, Any] = {"__name__": "__main__"}
    for kind, text in BLOCKS:
        if kind == "python":
            exec(compile(text, "study.md", "exec"), names)
            continue
        for line in text.strip().splitlines():
            program, *words = shlex.split(line)
            if program == "coopt":
                if words[0] == "run":
                    words = ["centralized", *words[1:], *CENTRAL]
                code, _, err = coopt(*words, *(SMALL if words[0] != "report" else []))
                assert code == 0, err
            elif program == "python":
                assert run(tables, words[2:]) == 0
    assert (coopt.folder / "digits.html").exists()
    made = {path.stem for path in (coopt.folder / "study").glob("*.json")}
    assert made == {"table1_baselines-smoke", "student_width-smoke"}
