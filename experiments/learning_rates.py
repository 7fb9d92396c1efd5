"""Whether the tables' one learning rate is fair: ``python -m experiments.learning_rates``.

All objectives of ``table1_baselines`` share the study's; here each also has a third and three
times of it.
"""

from experiments.table import Cell, Lab, Study, experiment
from experiments.table1_baselines import settings as objectives
from experiments.table1_baselines import train

FACTORS = (1 / 3, 1, 3)


def settings(study: Study) -> list[Cell]:
    """Return a row for each objective and learning rate."""
    rates = [round(factor * study.student.lr, 6) for factor in FACTORS]
    trained = [row for row in objectives(study) if row["objective"] != "random"]
    return [row | {"lr": rate} for row in trained for rate in rates]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Train by the objective at the rate, probed at the end."""
    return train(lab, cell, every=lab.study.student.epochs, lr=cell["lr"])


app = experiment(__name__, settings, measure)
