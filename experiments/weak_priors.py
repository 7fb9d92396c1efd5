"""Priors that have seen no image, and early training: ``python -m experiments.weak_priors``.

The paper's open problem. What is tried against it: a consensus in place of the best prior; targets
whitened, for those of weak priors vary in few directions; every weak prior for every sample, at K
times the cost; and ReLA, which regresses two strongly augmented views and goes on with BYOL when
that no longer helps.
"""

from experiments.figures import curves
from experiments.table import Cell, Lab, Study, experiment

TRIED: dict[str, tuple[str, Cell]] = {
    "best": ("best", {}),
    "consensus": ("consensus", {}),
    "consensus, whitened": ("consensus", {"whiten": True}),
    "every prior, whitened": ("every prior", {"whiten": True}),
    "rela": ("consensus", {"objective": "rela"}),
}
"""What the targets come from, and how the student is trained."""

WITHOUT = ("byol", "simclr")


def settings(study: Study) -> list[Cell]:
    """Return a row for each way to use weak priors, and for training without any."""
    return [{"how": how} for how in ("random", *TRIED, *WITHOUT)]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Train a student, probed after every epoch."""
    how, seed, weak = cell["how"], cell["seed"], lab.study.weak
    if how == "random":
        return {"accuracy": lab.random(seed)}
    if how in WITHOUT:
        return lab.student(None, seed, every=1, objective=how)
    reference, changes = TRIED[how]
    made = (
        lab.every_prior(seed, priors=weak)
        if reference == "every prior"
        else lab.collaborate(seed, priors=weak, reference=reference)
    )
    return lab.student(made, seed, every=1, **changes)


app = experiment(__name__, settings, measure, curves)
