"""Students: models trained on an optimized dataset, and the probe that judges them."""

from coopt_fl.students.checkpoint import load_student
from coopt_fl.students.classifier import fit_probe

__all__ = ["fit_probe", "load_student"]
