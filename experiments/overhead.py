"""What collaboration adds to targets and training: ``python -m experiments.overhead``.

Uniformity and alignment, and each participant's features of the shared set S.
"""

from experiments.figures import dots
from experiments.lab import Lab
from experiments.scales import Study
from experiments.table import Cell, experiment


def settings(study: Study) -> list[Cell]:
    """Return a row for each size of the shared set."""
    return [{"shared": size} for size in study.sizes]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Make targets, and compare what it took with a training on them."""
    made = lab.collaborate(cell["seed"], shared=cell["shared"], reference="best")
    training = lab.student(made, cell["seed"])["training s"]
    targets, overhead = sum(made.optimize), made.align + made.represent
    return {
        "uniformity and alignment s": made.align,
        "features of S s": made.represent,
        "targets s": targets,
        "training s": training,
        "share of targets": overhead / targets,
        "share of training": overhead / training,
    }


app = experiment("overhead", settings, measure, dots)

if __name__ == "__main__":
    app()
