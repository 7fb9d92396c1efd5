"""How large must the shared set be? ``python -m experiments.shared_size --scale cpu``.

A consensus needs twice as many samples as a target has numbers.
"""

from statistics import fmean

from experiments.figures import dots
from experiments.lab import Lab
from experiments.scales import Study
from experiments.table import Cell, experiment


def settings(study: Study) -> list[Cell]:
    """Return a row for each size, with either reference where it is possible."""
    rows = [{"shared": size, "reference": "best"} for size in study.sizes]
    large = [size for size in study.sizes if size >= 2 * study.dim]
    return rows + [{"shared": size, "reference": "consensus"} for size in large]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Train on targets that so many samples aligned."""
    made = lab.collaborate(cell["seed"], shared=cell["shared"], reference=cell["reference"])
    return lab.student(made, cell["seed"]) | {"r2": fmean(made.r2)}


app = experiment("shared_size", settings, measure, dots)

if __name__ == "__main__":
    app()
