"""Everything that needs no Flower works if neither Flower nor Ray can be imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.command import TINY

SCRIPT = """
import json, sys


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("flwr", "ray"):
            raise ModuleNotFoundError(f"{name} is not to be had", name=name)


sys.meta_path.insert(0, Missing())
from coopt_fl.cli.main import main

for words in json.loads(sys.argv[1]):
    sys.argv = ["coopt", *words]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            sys.exit(f"coopt {' '.join(words)}: exit code {ended.code}")
"""


@pytest.mark.whole
def test_all_but_run_work_without_flower_and_ray(tmp_path: Path) -> None:
    """Run the baseline, its students and their reports in one process."""
    config, run, student = tmp_path / "tiny.yaml", tmp_path / "run", tmp_path / "student"
    config.write_text(json.dumps(TINY))  # JSON is YAML
    words = [
        ("centralized", config, "--prior", "alpha", "--out", run),
        ("train", run, "--out", student),
        ("pretrain", config, "--dataset", run, "--out", tmp_path / "pretrained"),
        ("probe", student / "checkpoint.pt"),
        ("inspect", run),
        ("report", run, "--out", tmp_path / "report.html"),
    ]
    commands = json.dumps([[str(word) for word in line] for line in words])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, commands], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "report.html").exists()
