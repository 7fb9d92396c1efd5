"""Are honest participants ever accused, and which lies are seen?

Each cell counts over several runs of the platform, played with features that are computed once:
shared set, blocks, units, owners and alignments are drawn anew with each run, and what participants
answer is judged as the platform does. A lie is told about everything except the shared set, which a
liar knows; where a lie allows it, an id that is asked twice gets the same answer twice.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from coopt_fl.core.seeding import derive_seed
from coopt_fl.optimized.block import Block
from coopt_fl.policies.audit import Answer, Audit, Judgement, Known, odd_spread
from coopt_fl.policies.evidence import PREDICTS
from coopt_fl.targets import CONSENSUS
from experiments.figures import lines
from experiments.lab import Lab
from experiments.played import LIES, MIXES, SWAPPED, Answers, Played, kind, play, tell
from experiments.scales import Study
from experiments.table import Cell, table

SHARED = ((25, 16), (60, 32), (130, 128), (260, 128))
"""|S| and n."""

FRACTIONS = (0.01, 0.03, 0.1)
LIED_IN = ((60, "best"), (260, CONSENSUS))
"""|S| and reference of the runs in which lies are told, with ridge."""

HONEST_RUNS, LYING_RUNS = 34, 4
"""In a cell; three seeds give a hundred and a dozen."""

HONEST = "none"


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


def lied(study: Study) -> list[Cell]:
    """Return a row for each kind of run and what is told in it, with the liar's kind of prior.

    Where no lies are told, only the largest share of audit rows is tried: it accuses most easily.
    """
    small = study.data.source == "synthetic"
    rows = []
    for run in runs(study):
        lied_in = run["solver"] == "ridge" and (small or (run["size"], run["reference"]) in LIED_IN)
        fractions, told = FRACTIONS[-1:], [(HONEST, "")]
        if lied_in:
            fractions = fractions if small else FRACTIONS
            told += product(LIES, dict.fromkeys(kind(name) for name in MIXES[run["mix"]]))
        for fraction, (lie, liar) in product(fractions, told):
            if lie != SWAPPED or (liar == "trained" and not small):
                rows.append(run | {"lie": lie, "fraction": fraction, "liar": liar})
    return rows


@table(
    lied,
    lines("fraction", "found", mix="mixed", reference=CONSENSUS, solver="ridge", liar="trained"),
)
def audit(lab: Lab, cell: Cell) -> Cell:
    """Count over the runs of a cell.

    Tests are ``itself`` (contradicts what it said before), ``spread`` (targets are spread too
    widely or too narrowly) and ``others`` (the majority contradicts it). A count is of the runs in
    which the liar fails; ``honest, TEST`` of participants that fail it and did not lie;
    ``samples`` is the mean number of audited ones.
    """
    counts = Counter[str]()
    run = {key: cell[key] for key in ("mix", "size", "dim", "reference", "solver", "fraction")}
    for draw in range(HONEST_RUNS if cell["lie"] == HONEST else LYING_RUNS):
        seed = derive_seed(cell["seed"], "audit", draw)
        counts.update(outcome(play(lab, seed, **run), cell, seed))
    counts["samples"] /= counts["runs"]
    return {name: float(count) for name, count in counts.items()}


def outcome(run: Played, cell: Cell, seed: int) -> dict[str, float]:
    """Count what is found out about the liar, and who else is accused."""
    liar, answers = None, run.answers()
    if cell["lie"] != HONEST:
        rng = np.random.default_rng(derive_seed(seed, cell["lie"]))
        liar = str(rng.choice([name for name in run.expected if kind(name) == cell["liar"]]))
        answers = tell(cell["lie"], run, liar, rng)
    asked = [liar] if liar else list(run.expected)
    flagged, judged, samples = accused(run, asked, answers)
    return {
        "runs": 1,
        "found": liar in set().union(*flagged.values()),
        **{test: liar in names for test, names in flagged.items()},
        **{f"honest, {test}": len(names - {liar}) for test, names in flagged.items()},
        "honest": len(set(asked) - {liar}),
        "undecided": bool(judged.undecided),
        "samples": sum(liar in (None, one.owner, one.auditor) for one in samples),
    }


def accused(
    run: Played, asked: Collection[str], answers: Answers
) -> tuple[dict[str, set[str]], Judgement, list[Answer]]:
    """Return who fails each test, the judgement, and what it is of: what two were asked for."""
    twice = asked_twice(run, answers)
    others = [one for one in twice if one.owner != one.auditor]
    judged = Audit().judge(run.expected, others)
    flagged = inspected(run, asked, answers) | {"others": set(judged.rejected)}
    flagged["itself"] |= contradicted(run, twice)
    return flagged, judged, others


def contradicted(run: Played, twice: Sequence[Answer]) -> set[str]:
    """Return who answered twice to the same ids, and not the same."""
    alone = [one for one in twice if one.owner == one.auditor]
    return set(Audit().judge(run.expected, alone).rejected)


def inspected(run: Played, asked: Collection[str], answers: Answers) -> dict[str, set[str]]:
    """Return whose answers contradict its features of S, and whose have an odd spread."""
    plan, policy, none = run.agreed.plan, Audit(), np.empty(0, np.int64)
    itself, spread = set[str](), set[str]()
    for index, ids in enumerate(plan.units):
        if (name := run.owner(index)) not in asked:
            continue
        expected = run.expected[name]
        unit = Block(ids, answers[index], np.zeros(len(ids), np.int16), none, 0.0)
        on_s, nothing = Known(plan.shared, expected.fitted), Known(none, expected.fitted[:0])
        if policy.inspect(unit, on_s, expected, projected=True):
            itself.add(name)
        if policy.inspect(unit, nothing, expected, projected=index in run.fitted_on):
            spread.add(name)
    return {"itself": itself, "spread": spread}


def asked_twice(run: Played, answers: Answers) -> list[Answer]:
    """Return what was answered to every id of an audit, by block and unit."""
    plan = run.agreed.plan
    home = np.empty(len(run.lab.all), np.int64)
    for index, ids in enumerate(plan.blocks):
        home[ids] = index
    said = [dict(zip(u.tolist(), y, strict=True)) for u, y in zip(plan.units, answers, strict=True)]
    return [
        Answer(run.owner(block), block, run.owner(unit), unit, said[block][id], said[unit][id])
        for unit in range(len(plan.units))
        for id in plan.audit_ids(unit).tolist()
        for block in [int(home[id])]
    ]


ROWS = (20, 40, 64, 128, 512, 1024, 4096)
"""In a set of rows."""

FACTORS = {"honest": 1.0, "doubled": 2.0, "halved": 0.5}


def judged_alone(study: Study) -> list[Cell]:
    """Return a row for each |S|, whether held-out targets predict anything, and block size."""
    sizes = dict.fromkeys(run["size"] for run in runs(study))
    each = product(sizes, (True, False), ROWS)
    return [{"size": size, "predicts": predicts, "rows": rows} for size, predicts, rows in each]


@table(judged_alone, lines("rows", "honest"))
def audit_spreads(lab: Lab, cell: Cell) -> Cell:
    """Does the audit's test of spread accuse the honest?

    Counts of odd spreads among rows of any block size: as they are, doubled and halved; ``runs`` is
    how many sets of rows were judged. Nothing else is said of them, and they are of no block that
    the reference's projection was fitted on.
    """
    counts = counted(lab, cell["size"], cell["seed"])[cell["predicts"], cell["rows"]]
    return {name: float(counts[name]) for name in ("runs", *FACTORS)}


@lru_cache(maxsize=1)  # consecutive rows share it
def counted(lab: Lab, size: int, seed: int) -> dict[tuple[bool, int], Counter[str]]:
    """Count odd spreads in all runs with ``size`` shared samples, by what is in a row."""
    found = defaultdict[tuple[bool, int], Counter[str]](Counter)
    kinds = [run for run in runs(lab.study) if run["size"] == size]
    for kind_of_run, draw in product(kinds, range(HONEST_RUNS)):
        run = play(lab, derive_seed(seed, "audit", draw), **kind_of_run, fraction=FRACTIONS[-1])
        rng = np.random.default_rng(derive_seed(seed, "rows", draw))
        fitted = [run.agreed.plan.blocks[index] for index in run.fitted_on]
        free = np.setdiff1d(lab.all, np.concatenate([[], *fitted]))
        for name, known in run.expected.items():
            for rows in (count for count in ROWS if count <= len(free)):
                y = run.honest[name][rng.choice(free, rows, replace=False)].astype(np.float32)
                odd = {
                    word: odd_spread((factor * y).astype(np.float16), known) is not None
                    for word, factor in FACTORS.items()
                }
                found[known.r2 > PREDICTS, rows].update(runs=1, **odd)
    return found
