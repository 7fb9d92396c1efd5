"""Seconds of uniformity and alignment against all else: ``python -m experiments.overhead``."""

from experiments.figures import dots
from experiments.lab import Lab
from experiments.scales import Study
from experiments.table import Cell, experiment


def settings(study: Study) -> list[Cell]:
    """Return a row for each size of the shared set."""
    return [{"shared": size} for size in study.sizes]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Make targets, and compare what it took with a training on them, of which one epoch is run."""
    made = lab.collaborate(cell["seed"], shared=cell["shared"], reference="best")
    epochs = lab.study.student.epochs
    training = epochs * lab.student(made, cell["seed"], epochs=1)["training s"]
    targets = sum(made.optimize)
    return {
        "uniformity and alignment s": made.align,
        "targets s": targets,
        "training s": training,
        "share of targets": made.align / targets,
        "share of training": made.align / training,
    }


app = experiment("overhead", settings, measure, dots)

if __name__ == "__main__":
    app()
