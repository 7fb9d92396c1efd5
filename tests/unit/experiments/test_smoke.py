"""Every table and figure is made at the smallest scale, and resumed after an interruption."""

import json
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pytest

from coopt_fl.targets import solvers
from experiments import audit, command, ours
from experiments.__main__ import TABLES, main, work
from experiments.scales import SCALES
from experiments.table import summary

(STUDY,) = SCALES["smoke"].values()

pytestmark = pytest.mark.whole


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce what is set in the code, not in the study: draws, steps, epochs and pixels."""
    monkeypatch.setattr(ours, "DRAWS", 1)
    monkeypatch.setattr(ours, "FACTORS", (1,))
    monkeypatch.setattr(ours, "LONGER", 2)
    monkeypatch.setattr(audit, "HONEST_RUNS", 2)
    monkeypatch.setattr(audit, "LYING_RUNS", 1)
    monkeypatch.setattr(solvers, "SGD_STEPS", 5)
    monkeypatch.setitem(matplotlib.rcParams, "savefig.dpi", 30)


def run(name: str, folder: Path) -> int:
    words = [name, "--scale", "smoke", "--results", str(folder), "--figures", str(folder)]
    return command.run(main, words)


@pytest.mark.parametrize("name", TABLES)
def test_the_smallest_scale(name: str, tmp_path: Path) -> None:
    if name == "lightly_train":
        pytest.importorskip("lightly_train")
    assert run(name, tmp_path) == 0
    file = tmp_path / f"{name}-smoke.json"
    (known,) = json.loads(file.read_text()).values()
    rows = TABLES[name].rows(STUDY)
    assert len(known["cells"]) == len(rows) == len(known["table"])
    assert {"command", "study", "hardware", "versions", "samples"} <= set(known["about"])
    assert (tmp_path / f"{name}-smoke.png").stat().st_size > 1000


def test_a_table_continues_with_the_cell_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("redundancy", tmp_path) == 0
    file = tmp_path / "redundancy-smoke.json"
    (known,) = json.loads(file.read_text()).values()
    missing = known["cells"].pop(0)
    file.write_text(json.dumps({"synthetic": known}))
    capsys.readouterr()
    assert run("redundancy", tmp_path) == 0
    said, begun = capsys.readouterr()
    assert len(said.splitlines()) == 2, "only the cell that is missing, and where"
    (line,) = begun.splitlines()
    assert line.endswith(f"measuring cell 1 of {len(known['cells']) + 1}")
    (known,) = json.loads(file.read_text()).values()
    assert known["cells"][-1]["accuracy"] == missing["accuracy"]


def test_a_table_has_mean_and_standard_deviation_over_seeds() -> None:
    cells = [{"a": 1, "seed": s, "x": x, "took": 9.0} for s, x in enumerate((1.0, 2.0, 6.0))]
    cells.append({"a": 2, "seed": 0, "x": 5.0, "took": 9.0})
    assert summary(cells, [{"a": 1}, {"a": 2}, {"a": 3}]) == [
        {"a": 1, "x": {"mean": 3.0, "std": pytest.approx(7**0.5), "n": 3}},
        {"a": 2, "x": {"mean": 5.0, "std": 0.0, "n": 1}},
    ]


@pytest.mark.parametrize(("given", "gpus"), [("", {"0", "1"}), ("4,5,6", {"4", "5"})])
def test_each_table_is_started_once_on_its_gpu_and_failures_are_named(
    monkeypatch: pytest.MonkeyPatch, given: str, gpus: set[str]
) -> None:
    started: list[tuple[str, ...]] = []
    both = threading.Barrier(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)

    def run(command: Sequence[str], env: dict[str, str], check: bool) -> SimpleNamespace:
        started.append((*command[1:], env["CUDA_VISIBLE_DEVICES"]))
        both.wait(60)
        return SimpleNamespace(returncode=int("tsne" in command))

    monkeypatch.setattr(subprocess, "run", run)
    names = ["recipe", "tsne", "overhead", "election"]
    assert work(names, ["--scale", "gpu"], 2) == ["tsne"]
    assert [one[:-1] for one in sorted(started)] == [
        ("-m", "experiments", name, "--scale", "gpu") for name in sorted(names)
    ]
    assert {one[-1] for one in started[:2]} == {one[-1] for one in started[2:]} == gpus


def test_cells_of_other_settings_are_not_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("redundancy", tmp_path)
    file = tmp_path / "redundancy-smoke.json"
    known = json.loads(file.read_text())
    known["synthetic"]["about"]["study"]["student"]["epochs"] = 99
    file.write_text(json.dumps(known))
    assert run("redundancy", tmp_path) == 2
    assert "another study of synthetic" in capsys.readouterr().err
