"""``make gpu``, in small: where there is no GPU, too, all its steps can be taken."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from experiments import command

ROOT = Path(__file__).parents[2]


def test_each_step_is_taken_and_written_down(tmp_path: Path) -> None:
    words = ["benchmarks.gpu", "--toy", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
    logs = {log.stem: log.read_text() for log in tmp_path.glob("*.log")}
    assert done.returncode == 0, (done.stderr, logs)
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row["outcome"] for row in rows] == ["done"] * 3
    assert "passed" in logs["tests"]
    assert json.loads((tmp_path / "bench.json").read_text())["rows"]
    (study,) = json.loads((tmp_path / "equal_seconds-smoke.json").read_text()).values()
    assert [row["objective"] for row in study["table"]] == ["random", "regression", "dcl", "byol"]


def test_what_takes_too_long_is_ended_and_the_next_step_is_taken(tmp_path: Path) -> None:
    slow, quick = (gpu.Step(1, name, ("timeit", "-n", "1", "-r", "1", what)) for name, what in (
        ("slow", "import time; time.sleep(60)"), ("quick", "pass")))  # fmt: skip
    assert gpu.take(slow, tmp_path, 1.0)["outcome"] == "out of time"
    assert gpu.take(quick, tmp_path, 60.0)["outcome"] == "done"
    assert "loop" in (tmp_path / "quick.log").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="for hosts without a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(gpu.main, []) == 2
    assert "there is no GPU" in capsys.readouterr().err
