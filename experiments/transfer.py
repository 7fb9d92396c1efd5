"""Accuracy of a student on images of other datasets, with few labels and with all."""

from functools import partial

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.progress import Progress
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.evaluate import evaluate_student
from experiments.lab import Lab
from experiments.paper import train
from experiments.table import Cell, table
from experiments.untrained import untrained_student

TRAINED = ("regression", "dcl", "random")


@table(lambda study: [{"objective": name} for name in TRAINED])
def transfer(lab: Lab, cell: Cell) -> Cell:
    """Linear probes on other datasets, with 1, 10, 100 labels per class, and with all.

    ``accuracy`` is that on the study's images. The random backbone has their batch norm statistics.
    """
    if cell["objective"] != "random":
        every = lab.study.student.epochs
        return train(lab, cell, every=every, judge=partial(everywhere, lab))
    return everywhere(lab, untrained_student(lab, cell["seed"]))


def everywhere(lab: Lab, student: LoadedStudent) -> Cell:
    """Return a student's accuracies on the study's images, and on each other dataset."""
    found: Cell = dict(vars(lab.judge(student)))
    for source in lab.study.elsewhere:
        told = evaluate_student(student, DataConfig(source), 0, Progress())
        labels = {f"{source}, {few.per_class} a class": few.accuracy for few in told.few}
        found |= labels | {f"{source}, all labels": told.linear}
    return found
