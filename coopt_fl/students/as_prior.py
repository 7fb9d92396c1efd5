"""``checkpoint:PATH``: a student that we trained, as a prior of the next cycle."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from coopt_fl.core.errors import PriorError
from coopt_fl.data.image import Preprocess
from coopt_fl.priors.spec import PriorSpec
from coopt_fl.students.checkpoint import load_student


def check(spec: PriorSpec) -> None:
    """Require the file."""
    if not Path(spec.name).is_file():
        raise PriorError(f"there is no file {spec.name}; name one that `coopt train` wrote")


def load(spec: PriorSpec) -> tuple[nn.Module, Preprocess]:
    """Load the student; its features are those that the probe judges."""
    student = load_student(Path(spec.name))
    size = spec.size or student.model.image_size
    return student.model, replace(student.preprocess, size=size, resize=size)
