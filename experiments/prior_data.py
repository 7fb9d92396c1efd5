"""What the priors were trained on: ``python -m experiments.prior_data --scale cpu``.

Three participants each time: priors of another dataset, priors that have seen none, and one prior
that learned from the very images by SimCLR, without labels (its training is not counted).
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from coopt_fl.config.schema import Config
from coopt_fl.students.train import CHECKPOINT, train_student
from experiments.lab import Made
from experiments.table import Cell, Lab, Study, experiment


def settings(study: Study) -> list[Cell]:
    """Return a row for each origin of the priors."""
    return [{"trained on": origin} for origin in ("other images", "nothing", "these images")]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Train a student on the targets of such priors."""
    seed = cell["seed"]
    if cell["trained on"] == "these images":
        return lab.student(of_own(lab, seed), seed)
    priors = lab.study.priors if cell["trained on"] == "other images" else lab.study.weak
    return lab.student(lab.collaborate(seed, priors=priors), seed)


def of_own(lab: Lab, seed: int) -> Made:
    """Return the targets of a prior that was trained on the images of the study."""
    student = replace(lab.study.student, objective="simclr")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        train_student(None, Config(seed, lab.study.data, student=student), out, devices=1)
        return lab.centralize(f"checkpoint:{out / CHECKPOINT}", seed)


app = experiment(__name__, settings, measure)
