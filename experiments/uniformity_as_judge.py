"""Does the platform's score rank priors as their probes do?

``python -m experiments.uniformity_as_judge --scale cpu``. The uniformity is that of the features of
a shared set; the probe is a linear classifier of all features.
"""

from scipy.stats import spearmanr

from coopt_fl.students.curve import mean_and_spread
from coopt_fl.targets import uniformity
from experiments.figures import points
from experiments.table import Cell, Lab, Study, experiment


def settings(study: Study) -> list[Cell]:
    """Return a row for each prior that a study knows."""
    return [{"prior": spec} for spec in dict.fromkeys((*study.priors, *study.weak, *study.ladder))]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Score the prior in both ways."""
    x, _ = lab.features(cell["prior"])
    shared = lab.shared(lab.study.shared, cell["seed"])
    return {"uniformity": uniformity(x[shared]), "accuracy": lab.probe(cell["prior"])}


def ranks(cells: list[Cell]) -> list[Cell]:
    """Return Spearman's rank correlation of -uniformity and probe, among all and trained priors."""
    trained = [cell for cell in cells if not cell["prior"].startswith("random:")]
    among = {"all priors": cells, "trained priors": trained}
    return [{"among": name, "rank correlation": _over_seeds(of)} for name, of in among.items()]


def _over_seeds(cells: list[Cell]) -> Cell | None:
    found = []
    for seed in dict.fromkeys(cell["seed"] for cell in cells):
        same = [cell for cell in cells if cell["seed"] == seed]
        scores, probes = ([one[key] for one in same] for key in ("uniformity", "accuracy"))
        found.append(-float(spearmanr(scores, probes).statistic))
    return mean_and_spread(found)


app = experiment(__name__, settings, measure, points)
