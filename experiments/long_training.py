"""Does the lead last? ``python -m experiments.long_training --scale cpu``.

Eight times the epochs of the other tables, for ours and the strongest baselines, for
self-supervised learning gains from long training. This table is ours, not the paper's.
"""

from experiments.figures import curves
from experiments.table import Cell, Lab, Study, experiment
from experiments.table1_baselines import train

LONGER = 8
PLAIN = "regression, no augmentation"
OBJECTIVES = ("random", "regression", PLAIN, "moco", "dcl", "byol")


def settings(study: Study) -> list[Cell]:
    """Return a row for each objective."""
    return [{"objective": name} for name in OBJECTIVES]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Train by the objective, with a probe for each of the shorter trainings' length."""
    epochs, changes = lab.study.student.epochs, {}
    if cell["objective"] == PLAIN:
        cell, changes = cell | {"objective": "regression"}, {"augment": "none"}
    return train(lab, cell, every=epochs, epochs=LONGER * epochs, **changes)


app = experiment(__name__, settings, measure, curves)
