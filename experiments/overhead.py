"""What collaboration adds to targets and training: ``python -m experiments.overhead``.

Uniformity, the test of alignability and alignment, and each participant's features of the shared
set S. References of few samples are elected as in ``shared_size``.
"""

from experiments.shared_size import elect_anyhow
from experiments.table import Cell, Lab, Study, experiment


def settings(study: Study) -> list[Cell]:
    """Return a row for each size of the shared set."""
    return [{"shared": size} for size in study.sizes]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Make targets, and compare what it took with a training on them."""
    how = {"shared": cell["shared"], "reference": "best", "elect": elect_anyhow}
    made = lab.collaborate(cell["seed"], **how)
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


app = experiment(__name__, settings, measure)
