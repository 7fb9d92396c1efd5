"""Files written by the version of commit ef90e68 can still be used."""

import shutil
from pathlib import Path

import pytest
import torch

import coopt_fl
from coopt_fl.api import train
from coopt_fl.config.load import load_config
from coopt_fl.core.errors import OutputError
from coopt_fl.optimized.verify import verify
from coopt_fl.students.checkpoint import load_student
from tests.flower.grid import run_platform

FIXTURES = Path(__file__).parents[1] / "fixtures"
OLD = FIXTURES / "ef90e68"
DIGEST = "18d06cbfc10621d414b721e26fd67dfaa825bc27119e8d7cef8f27b8ea219709"


def test_its_dataset_is_sound_and_can_be_trained_on(tmp_path: Path) -> None:
    provenance, problems = verify(OLD / "run" / "dataset")
    assert problems == []
    assert provenance.digest == DIGEST
    trained = train(
        OLD / "run", {"student.epochs": 1}, out=tmp_path / "student", devices=1, progress=None
    )
    assert trained["epochs"] == 1
    assert load_student(tmp_path / "student" / "checkpoint.pt").model.name == "convnet:4"


def test_its_student_is_loaded() -> None:
    student = load_student(OLD / "run" / "student" / "checkpoint.pt")
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    assert student.meta["dataset_digest"] == DIGEST
    assert student.features(images).shape == (2, student.model.width)


def test_its_half_finished_run_is_finished_with_the_digest_of_the_whole_one(
    tmp_path: Path,
) -> None:
    """Only missing blocks are requested."""
    shutil.copytree(OLD / "half", tmp_path / "half")
    kept = sorted((tmp_path / "half").glob("state/blocks/*.npz"))
    before = [path.read_bytes() for path in kept]
    grid = run_platform(load_config(str(FIXTURES / "tiny.yaml")), tmp_path / "half")
    assert coopt_fl.load(tmp_path / "half").digest == DIGEST
    assert [path.read_bytes() for path in kept] == before
    assert set(grid.kinds()) == {"query.describe", "train.optimize"}


def test_other_settings_are_refused_in_one_sentence(tmp_path: Path) -> None:
    shutil.copytree(OLD / "half", tmp_path / "half")
    config = load_config(str(FIXTURES / "tiny.yaml"), ["seed=1"])
    with pytest.raises(OutputError, match="seed: 0 there, 1 here"):
        run_platform(config, tmp_path / "half")
