"""What each prior of a crowd adds, how much weak ones hurt, and what helps against them."""

from coopt_fl.targets import CONSENSUS
from experiments.agreement import Agreed
from experiments.assignments import SHARDS, Assign, measured
from experiments.audit import accused
from experiments.heterogeneous import BEST
from experiments.lab import Lab
from experiments.played import before_audit
from experiments.scales import Study
from experiments.specialists import of_crowd
from experiments.table import Cell, table


def without_accused(lab: Lab, agreed: Agreed, seed: int) -> Cell:
    """Give no samples to participants that the audit would reject."""
    run = before_audit(lab, agreed)
    failed = set[str]().union(*accused(run, list(agreed.features), run.answers())[0].values())
    return {"weights": [float(name not in failed) for name in agreed.features]}


GCCA: Cell = {"consensus": "gcca"}
REMEDIES: dict[str, tuple[Cell, Assign]] = {
    CONSENSUS: ({}, SHARDS["equal"]),
    "consensus, by R2": ({}, SHARDS["by R2"]),
    "consensus, competence": ({}, SHARDS["competence, at most twice"]),
    "consensus, audit": ({}, without_accused),
    "best": (BEST, SHARDS["equal"]),
    "gcca": (GCCA, SHARDS["equal"]),
    **{
        f"gcca, {how}": (GCCA, SHARDS[how])
        for how in ("competence by looks, at most twice", "competence by looks")
    },
}


def crews(study: Study) -> dict[str, tuple[str, ...]]:
    """Return crowds by name: each without one prior; with more and more weak ones; without those.

    Weak priors replace the last sound ones of the crowd.
    """
    crowd, found = tuple(of_crowd(study)), dict[str, tuple[str, ...]]()
    sound = [spec for spec in crowd if spec not in study.weak]
    for spec in crowd:
        found[f"without {spec}"] = tuple(other for other in crowd if other != spec)
    for weak in range(len(crowd) - len(sound), len(crowd), 2):
        rest = tuple(sound[: len(crowd) - weak])
        found[f"{len(rest)} sound alone"] = rest
        found[f"{weak} of {len(crowd)} weak"] = (*rest, *study.weak[:weak])
    return found


def contributions(study: Study) -> list[Cell]:
    """Return a row for each crowd, and for each remedy in the crowds with weak priors."""
    names = list(crews(study))
    weak = [name for name in names if name.endswith(" weak")]
    rows = [{"crowd": name, "how": CONSENSUS} for name in names]
    return rows + [
        {"crowd": name, "how": how} for name in weak for how in REMEDIES if how != CONSENSUS
    ]


@table(contributions)
def crowd_contribution(lab: Lab, cell: Cell) -> Cell:
    """What does each prior add, how many weak ones hurt, and which remedy helps?

    ``2 of 10 weak`` is the whole crowd, as ``consensus`` is in ``crowd_central``. ``r2`` is as in
    ``crowd_shards``; with the reference ``best``, all participants align to the best prior,
    whatever the crowd.
    """
    how, assign = REMEDIES[cell["how"]]
    return measured(lab, cell["seed"], crews(lab.study)[cell["crowd"]], assign, **how)
