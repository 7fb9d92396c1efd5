"""To what targets are aligned, and how: ``python -m experiments.alignment --scale cpu``."""

from statistics import fmean

from experiments.figures import dots
from experiments.lab import Lab
from experiments.scales import Study
from experiments.table import Cell, experiment

REFERENCES = ("worst", "random", "best", "consensus")
SOLVERS = ("none", "sgd", "lstsq", "procrustes")


def settings(study: Study) -> list[Cell]:
    """Return each reference with the default solver, and each other solver with the best prior."""
    rows = [{"reference": reference, "solver": "ridge"} for reference in REFERENCES]
    return rows + [{"reference": "best", "solver": solver} for solver in SOLVERS]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Train on targets so aligned."""
    how = {key: cell[key] for key in ("reference", "solver")}
    made = lab.collaborate(cell["seed"], **how)
    return lab.student(made, cell["seed"]) | {"r2": fmean(made.r2)}


app = experiment("alignment", settings, measure, dots)

if __name__ == "__main__":
    app()
