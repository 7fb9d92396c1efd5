"""docs/tutorials/own-images.md: every block of bash and Python, in order, on fewer photos."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import ROOT, Shell
from tests.fenced import fenced

PAGE = (ROOT / "docs" / "tutorials" / "own-images.md").read_text()
BLOCKS = fenced(PAGE, "bash", "python")
SMALLER = {
    "PHOTOS, SIDE = 400, 160": "PHOTOS, SIDE = 80, 32",
    "coopt config --fit photos": "coopt config --fit photos student.epochs=1 "
    "student.image_size=96 student.model=resnet18 simulation.actors=1",
    "coopt train runs/photos": "coopt train runs/photos student.epochs=1",
}
"""What is changed, so that it takes a minute."""


@pytest.mark.xdist_group("faults")  # so that it has two tests: the largest lanes begin first
def test_from_photos_to_a_student_elsewhere(shell: Shell, tmp_path: Path) -> None:
    shell = replace(shell, extra={"COOPT_CACHE": str(tmp_path / "cache")})
    said = [execute(shell, *block) for block in BLOCKS]
    assert len(said) == 10
    assert any("of 16 photos right" in one for one in said)
    neighbours = next(one for one in said if one.startswith("1.000 ")).splitlines()
    assert len(neighbours) == 5 and all(line.endswith(".jpg") for line in neighbours)
    assert pq.read_metadata(tmp_path / "photos.parquet").num_rows == 64
    provenance = [tmp_path / place for place in ("runs", "elsewhere/runs")]
    here, there = (
        json.loads((one / "photos/dataset/provenance.json").read_text()) for one in provenance
    )
    assert (here["rows"], here["digest"]) == (64, there["digest"])


def execute(shell: Shell, kind: str, text: str) -> str:
    """Run a block as a reader does, and return what it prints."""
    for before, after in SMALLER.items():
        text = text.replace(before, after)
    command = ("bash", "-euc", text) if kind == "bash" else ("python", "-c", text)
    done = shell.run(*command)
    assert done.returncode == 0, f"{text}\n{done.stderr[-3000:]}"
    return done.stdout
