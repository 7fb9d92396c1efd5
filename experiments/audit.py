"""Are honest participants ever accused, and which lies are seen?

``python -m experiments.audit --scale cpu``. Each cell counts over several runs of the platform,
played with features that are computed once: shared set, blocks, units, owners and alignments are
drawn anew with each run, and what participants answer is judged as the platform does. A lie is told
about everything except the shared set, which a liar knows; where a lie allows it, an id that is
asked twice gets the same answer twice.

Tests are ``itself`` (contradicts what it said before), ``spread`` (targets are spread too widely or
too narrowly) and ``others`` (the majority contradicts it). A count is of the runs in which the
liar fails; ``honest, TEST`` of participants that fail it and did not lie.
"""

from collections import Counter

import numpy as np

from coopt_fl.core.seeding import derive_seed
from coopt_fl.policies.audit import inconsistent, odd_spread, spread
from coopt_fl.policies.evidence import Comparison, judge
from coopt_fl.targets import CONSENSUS
from experiments.figures import lines
from experiments.lies import LIES, SWAPPED, tell
from experiments.played import MIXES, Answers, Played, kind, play
from experiments.table import Cell, Lab, Study, experiment

SHARED = ((25, 16), (60, 32), (130, 128), (260, 128))
"""|S| and n."""

FRACTIONS = (0.01, 0.03, 0.1)
LIED_IN = ((60, "best"), (260, CONSENSUS))
"""|S| and reference of the runs in which lies are told, with ridge."""

HONEST_RUNS, LYING_RUNS = 34, 4
"""In a cell; three seeds give a hundred and a dozen."""

HONEST = "none"


def settings(study: Study) -> list[Cell]:
    """Return a row for each kind of run and what is told in it, with the liar's kind of prior.

    Where no lies are told, only the largest share of audit rows is tried: it accuses most easily.
    """
    small = study.data.source == "synthetic"
    rows = []
    for run in runs(study):
        lied_in = small or (run["size"], run["reference"]) in LIED_IN
        lied_in &= run["solver"] == "ridge"
        for fraction in FRACTIONS if lied_in and not small else FRACTIONS[-1:]:
            rows.append(run | {"lie": HONEST, "fraction": fraction, "liar": ""})
            rows += [
                run | {"lie": lie, "fraction": fraction, "liar": liar}
                for lie in (LIES if lied_in else ())
                for liar in dict.fromkeys(kind(name) for name in MIXES[run["mix"]])
                if lie != SWAPPED or (liar == "trained" and not small)
            ]
    return rows


def runs(study: Study) -> list[Cell]:
    """Return the kinds of runs: who takes part, |S|, n, reference and solver."""
    small = study.data.source == "synthetic"
    return [
        {"mix": mix, "size": size, "dim": dim, "reference": reference, "solver": solver}
        for mix in (("mixed",) if small else MIXES)
        for size, dim in (((study.shared, study.dim),) if small else SHARED)
        for reference, solver in (("best", "ridge"), (CONSENSUS, "ridge"), ("best", "procrustes"))
        if (reference == "best" or size >= 2 * dim) and (solver == "ridge" or size in (25, 260))
    ]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Count over the runs of a cell; ``samples`` is the mean number of audited ones."""
    counts = Counter[str]()
    for draw in range(HONEST_RUNS if cell["lie"] == HONEST else LYING_RUNS):
        seed = derive_seed(cell["seed"], "audit", draw)
        counts.update(outcome(played(lab, cell, seed), cell, seed))
    counts["samples"] /= counts["runs"]
    return {name: float(count) for name, count in counts.items()}


def played(lab: Lab, cell: Cell, seed: int) -> Played:
    """Return a run of a cell's kind, before anything is told in it."""
    kinds = ("mix", "size", "dim", "reference", "solver", "fraction")
    return play(lab, *(cell[key] for key in kinds), seed)


def outcome(run: Played, cell: Cell, seed: int) -> dict[str, float]:
    """Count what is found out about the liar, and who else is accused."""
    liar, answers = None, run.answers()
    if cell["lie"] != HONEST:
        rng = np.random.default_rng(derive_seed(seed, cell["lie"]))
        liar = str(rng.choice([name for name in run.expected if kind(name) == cell["liar"]]))
        answers = tell(cell["lie"], run, liar, rng)
    asked = [liar] if liar else list(run.expected)
    flagged = {
        "itself": {name for name in asked if contradicts(run, name, answers)},
        "spread": {name for name in asked if spreads_oddly(run, name, answers)},
    }
    comparisons = compared(run, answers)
    judged = judge(run.expected, comparisons)
    flagged["others"] = set(judged.rejected)
    about = [one for one in comparisons if liar in (None, one.owner, one.auditor)]
    return {
        "runs": 1,
        "found": liar in set().union(*flagged.values()),
        **{test: liar in names for test, names in flagged.items()},
        **{f"honest, {test}": len(names - {liar}) for test, names in flagged.items()},
        "honest": len(set(asked) - {liar}),
        "undecided": bool(judged.undecided),
        "samples": sum(len(one.ours) for one in about),
    }


def contradicts(run: Played, name: str, answers: Answers) -> bool:
    """Return whether a participant's answers contradict its features of S, or each other."""
    known, plan = run.expected[name], run.agreed.plan
    first = dict(zip(plan.shared.tolist(), known.fitted, strict=True))
    for index in plan.blocks_of(name):
        said = dict(zip(plan.units[index].tolist(), answers[index], strict=True))
        twice = [(said[id], first[id]) for id in said if id in first]
        if twice and inconsistent(*map(np.array, zip(*twice, strict=True)), spread(known.fitted)):
            return True
        first = said | first
    return False


def spreads_oddly(run: Played, name: str, answers: Answers) -> bool:
    """Return whether the targets of one of a participant's units have an odd spread."""
    mine = set(run.agreed.plan.blocks_of(name)) - set(run.fitted_on)
    return any(odd_spread(answers[index], run.expected[name]) for index in mine)


def compared(run: Played, answers: Answers) -> list[Comparison]:
    """Return what was answered by two participants, by block and unit."""
    plan, found = run.agreed.plan, []
    home = np.empty(len(run.lab.all), np.int64)
    for index, block in enumerate(plan.blocks):
        home[block] = index
    for unit, ids in enumerate(plan.units):
        for block in np.unique(home[ids]).tolist():
            owner, auditor = run.owner(block), run.owner(unit)
            if owner != auditor:
                here = home[ids] == block
                ours = answers[block][np.searchsorted(plan.units[block], ids[here])]
                found.append(Comparison(owner, block, auditor, unit, ours, answers[unit][here]))
    return found


draw = lines("fraction", "found", mix="mixed", reference=CONSENSUS, solver="ridge", liar="trained")
app = experiment(__name__, settings, measure, draw)
