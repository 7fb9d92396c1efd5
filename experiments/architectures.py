"""Every architecture, trained until it shows: ours against its own baseline, at equal steps."""

from dataclasses import replace

from coopt_fl.students.probe import random_student
from experiments.lab import Lab
from experiments.ours import take_statistics
from experiments.paper import train
from experiments.scales import Study
from experiments.table import Cell, table

RATE = 1e-3
"""Slow enough for every architecture."""

BASELINE = "dcl"


def _rows(study: Study) -> list[Cell]:
    return [
        {"model": model, "epochs": epochs, "objective": objective}
        for model, epochs in study.trained
        for objective in ("random", "regression", BASELINE)
    ]


@table(_rows)
def table3_long(lab: Lab, cell: Cell) -> Cell:
    """One optimized dataset for every architecture, against the best baseline of the same one.

    Both take as many steps, with the same rate. The random backbone has the batch statistics of the
    images, as after a training's first steps. As many epochs as a core makes in some twenty minutes
    by the baseline, whose step costs more than twice as much.
    """
    model, seed = cell["model"], cell["seed"]
    if cell["objective"] != "random":
        return train(lab, cell, every=cell["epochs"], model=model, epochs=cell["epochs"], lr=RATE)
    student = random_student(replace(lab.study.student, model=model), lab.study.data, seed)
    take_statistics(student, lab)
    return dict(vars(lab.judge(student)))
