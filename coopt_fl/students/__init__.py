"""Students: models trained on an optimized dataset, and the probe that judges them."""

from coopt_fl.students.checkpoint import LoadedStudent, load_student, save_student
from coopt_fl.students.models import Student, build_student, check_student
from coopt_fl.students.objectives import OBJECTIVES, cosine, mse
from coopt_fl.students.probe import (
    fit_probe,
    probe_features,
    probe_methods,
    probe_prior,
    probe_random,
    probe_student,
)
from coopt_fl.students.train import TrainResult, train_student

__all__ = [
    "OBJECTIVES",
    "LoadedStudent",
    "Student",
    "TrainResult",
    "build_student",
    "check_student",
    "cosine",
    "fit_probe",
    "load_student",
    "mse",
    "probe_features",
    "probe_methods",
    "probe_prior",
    "probe_random",
    "probe_student",
    "save_student",
    "train_student",
]
