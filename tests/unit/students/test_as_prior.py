from pathlib import Path

import pytest
import torch

from coopt_fl.core.errors import PriorError
from coopt_fl.priors import load_prior
from coopt_fl.students.checkpoint import LoadedStudent, load_student, save_student
from coopt_fl.students.images import resizing
from coopt_fl.students.models import build_student


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "student.pt"
    student = build_student("convnet:8", image_size=16, seed=3)
    preprocess = resizing(16, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    save_student(path, LoadedStudent(student, preprocess, {}))
    return path


def test_a_student_is_a_prior_with_the_same_features(checkpoint: Path) -> None:
    images = torch.randint(0, 256, (4, 3, 20, 24), dtype=torch.uint8)
    student = load_student(checkpoint)
    prior = load_prior(f"checkpoint:{checkpoint}")
    assert prior.width == student.model.width
    assert prior.preprocess == student.preprocess
    torch.testing.assert_close(prior.features(images), student.features(images))


def test_another_size_only_changes_the_preprocessing(checkpoint: Path) -> None:
    prior = load_prior(f"checkpoint:{checkpoint}?size=24")
    assert (prior.preprocess.size, prior.preprocess.resize) == (24, 24)
    assert prior.sha256 == load_prior(f"checkpoint:{checkpoint}").sha256


def test_a_file_that_is_no_student_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.pt"
    path.write_text("nothing")
    with pytest.raises(PriorError, match=r"prior 'checkpoint:.*is not a checkpoint of a student"):
        load_prior(f"checkpoint:{path}")
