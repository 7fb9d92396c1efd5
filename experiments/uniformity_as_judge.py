"""Does the platform's score rank priors as their probes do?

``python -m experiments.uniformity_as_judge --scale cpu``. The uniformity is that of the features of
a shared set; the probe is a linear classifier of all features.
"""

from coopt_fl.targets import uniformity
from experiments.figures import points
from experiments.lab import Lab
from experiments.scales import Study
from experiments.table import Cell, experiment


def settings(study: Study) -> list[Cell]:
    """Return a row for each prior that a study knows."""
    return [{"prior": spec} for spec in dict.fromkeys((*study.priors, *study.weak, *study.ladder))]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Score the prior in both ways."""
    x, _ = lab.features(cell["prior"])
    shared = lab.shared(lab.study.shared, cell["seed"])
    return {"uniformity": uniformity(x[shared]), "accuracy": lab.probe(cell["prior"])}


app = experiment("uniformity_as_judge", settings, measure, points)

if __name__ == "__main__":
    app()
