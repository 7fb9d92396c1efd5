"""Each sample optimized by r participants, averaged after alignment. Ours, not the paper's.

``python -m experiments.redundancy --scale cpu``. r times the inference; at equal cost compare it
with a student that is trained longer.
"""

from experiments.table import Cell, Lab, Study, experiment


def settings(study: Study) -> list[Cell]:
    """Return a row for each number of replicas."""
    return [{"replicas": r} for r in range(1, len(study.priors) + 1)]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Train on the averages."""
    return lab.student(lab.collaborate(cell["seed"], replicas=cell["replicas"]), cell["seed"])


app = experiment(__name__, settings, measure)
