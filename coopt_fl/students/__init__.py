"""Students: models trained on an optimized dataset, and the probe that judges them."""

from coopt_fl.students.checkpoint import LoadedStudent, load_student, save_student
from coopt_fl.students.curve import Point
from coopt_fl.students.models import build_student, check_student
from coopt_fl.students.probe import (
    Judge,
    fit_probe,
    probe_prior,
    probe_student,
    random_student,
)
from coopt_fl.students.train import train_student

__all__ = [
    "Judge",
    "LoadedStudent",
    "Point",
    "build_student",
    "check_student",
    "fit_probe",
    "load_student",
    "probe_prior",
    "probe_student",
    "random_student",
    "save_student",
    "train_student",
]
