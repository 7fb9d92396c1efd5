"""Metadata of a table's cells: command, versions, hardware and data."""

import json
import threading
from pathlib import Path

import pytest
import torch

from coopt_fl.core.errors import ConfigError
from experiments import table
from experiments.figures import dots
from experiments.lab import Lab
from experiments.scales import SCALES
from experiments.table import Cell, Measure, Table, fill

(STUDY,) = SCALES["smoke"].values()


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(STUDY)


def planted(measure: Measure, *rows: int) -> Table:
    return Table("none", lambda study: [{"row": row} for row in rows], measure, dots)


def measured(lab: Lab, file: Path, *rows: int) -> Cell:
    """Fill a table with these rows, and return it as stored."""

    fill(file, "none", "synthetic", lab, planted(lambda lab, cell: {"accuracy": 0.5}, *rows))
    known: Cell = json.loads(file.read_text())["synthetic"]
    return known


def test_a_cell_tells_versions_that_are_not_the_tables(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json"
    monkeypatch.setattr(table, "versions", lambda: {"torch": "1", "timm": "1"})
    measured(lab, file, 1)
    monkeypatch.setattr(table, "versions", lambda: {"torch": "2", "timm": "1", "lightly": "1"})
    known = measured(lab, file, 1, 2)
    assert known["about"]["versions"] == {"torch": "1", "timm": "1"}
    first, second = known["cells"]
    assert "versions" not in first
    assert second["versions"] == {"torch": "2", "lightly": "1"}
    assert known["table"][1] == {"row": 2, "accuracy": {"mean": 0.5, "std": 0.0, "n": 1}}


def test_processes_that_fill_the_same_table_lose_no_cell(lab: Lab, tmp_path: Path) -> None:
    file, both = tmp_path / "a.json", threading.Barrier(2)

    def measure(lab: Lab, cell: Cell) -> Cell:
        both.wait(60)
        return {"accuracy": 0.5}

    def work(study_name: str) -> None:
        fill(file, "none", study_name, lab, planted(measure, *range(20)))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    known = json.loads(file.read_text())
    assert {name: len(study["cells"]) for name, study in known.items()} == {"one": 20, "other": 20}


def test_a_cell_that_another_process_measured_meanwhile_is_stored_once(
    lab: Lab, tmp_path: Path
) -> None:
    file = tmp_path / "a.json"

    def measure(lab: Lab, cell: Cell) -> Cell:
        measured(lab, file, 1)
        return {"accuracy": 0.7}

    fill(file, "none", "synthetic", lab, planted(measure, 1))
    (cell,) = json.loads(file.read_text())["synthetic"]["cells"]
    assert cell["accuracy"] == 0.5


def test_a_table_measured_by_the_old_method_is_left_alone(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    known = measured(lab, file, 1)
    del known["about"]["method"]
    file.write_text(json.dumps({"synthetic": known}))
    with pytest.raises(ConfigError, match="another method of synthetic"):
        measured(lab, file, 1, 2)


def gpus(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: names[index])


def test_a_table_goes_on_with_fewer_gpus_or_another_cpu_but_not_another_gpu(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json"
    gpus(monkeypatch, *["H100"] * 4)
    measured(lab, file, 1)
    gpus(monkeypatch, "H100")
    assert len(measured(lab, file, 1, 2)["cells"]) == 2
    with monkeypatch.context() as other:
        other.setattr("coopt_fl.core.runtime.cpu_name", lambda: "another")
        *same, third = measured(lab, file, 1, 2, 3)["cells"]
    assert (["CPU" in cell for cell in same], third["CPU"]) == ([False, False], "another")
    gpus(monkeypatch, "A100", "H100")
    with pytest.raises(ConfigError, match="another hardware"):
        measured(lab, file, 1, 2, 3)
