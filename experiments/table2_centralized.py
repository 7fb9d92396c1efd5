"""CoOpt against one prior for all samples, and against every prior for every sample.

``python -m experiments.table2_centralized --scale cpu``. The ceiling has one head for each teacher,
on PHI-S targets (AM-RADIO, Theia): at equal cost it sees one K-th of the samples, else all of them
at K times the cost.
"""

from experiments.table import Cell, Lab, Study, experiment

CEILING = {"every prior, equal cost": lambda k: 1 / k, "every prior, K times the cost": lambda k: 1}


def settings(study: Study) -> list[Cell]:
    """Return a row for each way to make targets."""
    return [{"targets": how} for how in ("coopt", *study.priors, *CEILING)]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Train on the targets."""
    how, seed = cell["targets"], cell["seed"]
    if how == "coopt":
        made = lab.collaborate(seed)
    elif how in CEILING:
        made = lab.every_prior(seed, CEILING[how](len(lab.study.priors)))
    else:
        made = lab.centralize(how, seed)
    epochs = round(lab.study.student.epochs * len(lab.all) / len(made.rows))
    return lab.student(made, seed, epochs=epochs)  # as many samples seen, but for partial batches


app = experiment(__name__, settings, measure)
