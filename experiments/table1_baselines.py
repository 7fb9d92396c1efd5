"""CoOpt against self-supervised learning: ``python -m experiments.table1_baselines --scale cpu``.

All objectives have the same loop, images, optimizer, precision, clock and probe.
"""

from typing import Any

from coopt_fl.students.objectives import ON_TARGETS, WHERE
from experiments.figures import curves
from experiments.table import Cell, Lab, Study, experiment


def settings(study: Study) -> list[Cell]:
    """Return a row for each objective, and one for no training at all."""
    return [{"objective": name} for name in ("random", *WHERE)]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Train by the objective, probed after every epoch."""
    return train(lab, cell, every=1)


def train(lab: Lab, cell: Cell, *, every: int, **changes: Any) -> Cell:
    """Train by ``cell["objective"]``; see :meth:`Lab.student` for the rest."""
    objective, seed = cell["objective"], cell["seed"]
    if objective == "random":
        return {"accuracy": lab.random(seed)}
    made = lab.collaborate(seed) if objective in ON_TARGETS else None
    return lab.student(made, seed, every=every, objective=objective, **changes)


app = experiment(__name__, settings, measure, curves)
