"""What privacy costs a student: ``python -m experiments.privacy_students --scale cpu``.

Real students are trained on released targets: regression onto targets with noise is unbiased. A
noise of 100 leaves nothing of the targets: what it teaches, any noise teaches.
"""

import numpy as np

from experiments.lab import Made
from experiments.privacy import OFF, collaboration, epsilons, released
from experiments.table import Cell, Lab, Study, experiment

RANDOM = {"clip": None, "noise": None}
NOISES = (0.0, 0.06, 0.25, 1.0, 100.0)


def settings(study: Study) -> list[Cell]:
    """Return a row for the student before training, for no privacy, and for each noise."""
    return [RANDOM, OFF, *({"clip": 0.1, "noise": noise} for noise in NOISES)]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Train a student on released targets, and probe it."""
    seed = cell["seed"]
    if cell["noise"] is None:
        return {"student": lab.random(seed)}
    guard, agreed = collaboration(lab, cell)
    targets = np.zeros((len(lab.all), lab.study.dim), np.float32)
    for name, y in released(guard, agreed).items():
        targets[agreed.rows_of(name)] = y
    made = Made(lab.all, targets, np.full(len(targets), -1, np.int16), optimize=[])
    return {"student": lab.student(made, seed)["accuracy"]} | epsilons(lab, cell["noise"])


app = experiment(__name__, settings, measure)
