"""docs/export.md: its commands and its code, executed in order."""

import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import exports
from coopt_fl.config.schema import DataConfig, StudentConfig
from coopt_fl.students.checkpoint import load_student, save_student
from coopt_fl.students.probe import random_student
from tests.fenced import fenced
from tests.unit.command import Coopt

PAGE = Path(__file__).parents[3] / "docs" / "export.md"
BLOCKS = fenced(PAGE.read_text(), "sh", "python")
RUNS = {"digits": ("convnet:4", None), "photos": ("resnet18", 96)}


def test_the_page_has_the_results_of_the_survey() -> None:
    assert exports.table(exports.read(exports.RESULTS)) in PAGE.read_text()


@pytest.mark.whole
def test_the_page_works_as_it_is_written(coopt: Coopt) -> None:
    pytest.importorskip("onnxruntime")
    data = DataConfig()
    for run, (model, size) in RUNS.items():
        student = random_student(StudentConfig(model=model, image_size=size), data, seed=0)
        known = replace(student, meta={"data": asdict(data)})
        save_student(coopt.folder / "runs" / run / "student" / "checkpoint.pt", known)
    names = dict[str, Any]()
    for kind, text in BLOCKS:
        if kind == "python":
            exec(text, names)
            continue
        for command in text.strip().splitlines():
            program, *words = shlex.split(command)
            code, _, err = coopt(*words)
            assert (program, code) == ("coopt", 0), err
    first, *others = names["neighbours"]
    assert (first[:2], first[-1]) == ((7, "digits row 7"), pytest.approx(1))
    assert len(others) == 4 and others[0][-1] < 1
    again = load_student(coopt.folder / "again" / "seed-0" / "checkpoint.pt").meta["student"]
    assert again["init"] is None and len(again["init_sha256"]) == 64
