"""Does the audit ever accuse honest participants, and which lies does it detect?

Each cell counts over several simulated runs with precomputed features. Shared set, blocks, units,
owners and alignments are drawn anew for each run, and the answers are judged as the platform does.
A liar lies about all samples except the shared set, which it knows. If the kind of lie allows it,
an id that is requested twice gets the same answer twice.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from coopt_fl.core.seeding import derive_seed
from coopt_fl.optimized.block import Block
from coopt_fl.policies.audit import Answer, Audit, Judgement, Known
from coopt_fl.policies.evidence import PREDICTS
from coopt_fl.policies.spreads import odd_spread
from coopt_fl.targets import CONSENSUS
from experiments.figures import lines
from experiments.lab import Lab
from experiments.played import (
    LIES,
    MIXES,
    PERMUTED,
    SWAPPED,
    Answers,
    Played,
    kind,
    play,
    play_by_competence,
    tell,
)
from experiments.scales import Study
from experiments.table import Cell, table

SHARED = ((25, 16), (60, 32), (130, 128), (260, 128))
"""Size of the shared set, and width of the targets."""

FRACTIONS = (0.01, 0.03, 0.1)
LIED_IN = ((60, "best"), (260, CONSENSUS))
"""Size of the shared set and reference of the runs with a liar, all with ridge."""

HONEST_RUNS, LYING_RUNS = 34, 4
"""Runs per cell without and with a liar; three seeds give about 100 and 12."""

HONEST, TRAINED = "none", "trained"


def runs(study: Study) -> list[Cell]:
    """Return the kinds of runs: participants, shared set size, width, reference and solver."""
    small = study.data.source == "synthetic"
    return [
        {"mix": mix, "size": size, "dim": dim, "reference": reference, "solver": solver}
        for mix in (("mixed",) if small else MIXES)
        for size, dim in (((study.shared, study.dim),) if small else SHARED)
        for reference, solver in (("best", "ridge"), (CONSENSUS, "ridge"), ("best", "procrustes"))
        if (reference == "best" or size >= 2 * dim) and (solver == "ridge" or size in (25, 260))
    ]


def lied(study: Study) -> list[Cell]:
    """Return a row for each kind of run, share of audit samples, lie and kind of the liar's prior.

    Runs without a liar have only the largest share of audit samples, with which accusations are
    most likely.
    """
    small = study.data.source == "synthetic"
    rows = []
    for run in runs(study):
        lied_in = run["solver"] == "ridge" and (small or (run["size"], run["reference"]) in LIED_IN)
        fractions, told = FRACTIONS if lied_in and not small else FRACTIONS[-1:], [(HONEST, "")]
        if lied_in:
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
    """Count the failed tests over the runs of a cell.

    Tests are ``itself`` (the participant contradicts its own earlier answers), ``spread`` (its
    targets are spread too widely or too narrowly) and ``others`` (the majority contradicts it).
    ``TEST`` counts the runs in which the liar fails the test, ``honest, TEST`` the honest
    participants that fail it; ``samples`` is the mean number of audited samples.
    """
    counts = Counter[str]()
    run = {key: cell[key] for key in ("mix", "size", "dim", "reference", "solver", "fraction")}
    for seed in _draws(cell):
        counts.update(outcome(play(lab, seed, **run), cell, seed))
    return _summed(counts)


TOLD = (
    "constant",
    "ten values",
    "on a line",
    "noise",
    "rotated",
    "targets of other samples",
    SWAPPED,
    *PERMUTED,
)
"""Lies of runs by competence, one or two of each kind."""


def rows_by_competence(study: Study) -> list[Cell]:
    """Return a row for each mix, lie and share of audit samples; liars have trained priors.

    Without a liar each mix has only the largest share, with which accusations are most likely.
    """
    small = study.data.source == "synthetic"
    size, dim = (study.shared, study.dim) if small else SHARED[-1]
    rows: list[Cell] = []
    for mix in ("mixed",) if small else MIXES:
        told = [(HONEST, FRACTIONS[-1])]
        if mix in ("mixed", "six"):
            told += product(TOLD[:2] if small else TOLD, (FRACTIONS[0], FRACTIONS[-1]))
        rows += [
            {"mix": mix, "size": size, "dim": dim, "lie": lie, "fraction": fraction}
            for lie, fraction in told
        ]
    return rows


@table(rows_by_competence, lines("fraction", "found", mix="mixed"))
def audit_competence(lab: Lab, cell: Cell) -> Cell:
    """Count the failed tests over runs with ``assignment.by=competence``, as :func:`audit` does.

    Participants without a block cannot be accused: ``honest`` counts those with blocks.
    """
    return _counted_by_competence(lab, cell)


@table(
    lambda study: [{"consensus": "gcca", **row} for row in rows_by_competence(study)],
    lines("fraction", "found", mix="mixed"),
)
def audit_gcca(lab: Lab, cell: Cell) -> Cell:
    """Count as :func:`audit_competence` does, where all align to another consensus."""
    return _counted_by_competence(lab, cell, consensus=cell["consensus"])


def _counted_by_competence(lab: Lab, cell: Cell, consensus: str = "pca") -> Cell:
    counts = Counter[str]()
    run = {key: cell[key] for key in ("mix", "size", "dim", "fraction")}
    for seed in _draws(cell):
        played = play_by_competence(lab, seed, **run, consensus=consensus)
        counts.update(outcome(played, cell | {"liar": TRAINED}, seed))
    return _summed(counts)


def _draws(cell: Cell) -> list[int]:
    """Return the seed of each run of a cell."""
    count = HONEST_RUNS if cell["lie"] == HONEST else LYING_RUNS
    return [derive_seed(cell["seed"], "audit", draw) for draw in range(count)]


def _summed(counts: Counter[str]) -> Cell:
    """Return the counts of a cell, with the mean number of audited samples."""
    found = {name: float(count) for name, count in counts.items()}
    return found | {"samples": found["samples"] / found["runs"]}


def outcome(run: Played, cell: Cell, seed: int) -> dict[str, float]:
    """Count what is found out about the liar, and who else is accused."""
    liar, answers = None, run.answers()
    asked = [name for name in run.expected if run.agreed.plan.blocks_of(name)]
    if cell["lie"] != HONEST:
        rng = np.random.default_rng(derive_seed(seed, cell["lie"]))
        liar = str(rng.choice([name for name in asked if kind(name) == cell["liar"]]))
        answers = tell(cell["lie"], run, liar, rng)
        asked = [liar]
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
    """Return the participants that fail each test, the judgement, and the answers it is based on.

    These are the answers to samples that two participants got.
    """
    twice = asked_twice(run, answers)
    others = [one for one in twice if one.owner != one.auditor]
    judged = Audit().judge(run.expected, others)
    flagged = inspected(run, asked, answers) | {"others": set(judged.rejected)}
    flagged["itself"] |= contradicted(run, twice)
    return flagged, judged, others


def contradicted(run: Played, twice: Sequence[Answer]) -> set[str]:
    """Return the participants that gave different answers to the same ids."""
    alone = [one for one in twice if one.owner == one.auditor]
    return set(Audit().judge(run.expected, alone).rejected)


def inspected(run: Played, asked: Collection[str], answers: Answers) -> dict[str, set[str]]:
    """Return participants that contradict their own features of S, and those with an odd spread."""
    plan, policy, none = run.agreed.plan, Audit(), np.empty(0, np.int64)
    itself, spread = set[str](), set[str]()
    for index, ids in enumerate(plan.units):
        if (name := run.owner(index)) not in asked:
            continue
        expected = run.expected[name]
        unit = Block(ids, answers[index], np.zeros(len(ids), np.int16), none, 0.0)
        on_s, nothing = Known(plan.shared, expected.fitted), Known(none, expected.fitted[:0])
        if policy.inspect(unit, on_s, expected, None):
            itself.add(name)
        if policy.inspect(unit, nothing, expected, run.alike(index)):
            spread.add(name)
    return {"itself": itself, "spread": spread}


def asked_twice(run: Played, answers: Answers) -> list[Answer]:
    """Return both answers to each audited id: the block's owner's and the auditing unit's."""
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
"""Numbers of rows in a judged set."""

FACTORS = {"honest": 1.0, "doubled": 2.0, "halved": 0.5}


def judged_alone(study: Study) -> list[Cell]:
    """Return a row for each size of S, predictive or unpredictive participants, and block size."""
    sizes = dict.fromkeys(run["size"] for run in runs(study))
    each = product(sizes, (True, False), ROWS)
    return [{"size": size, "predicts": predicts, "rows": rows} for size, predicts, rows in each]


@table(judged_alone, lines("rows", "honest"))
def audit_spreads(lab: Lab, cell: Cell) -> Cell:
    """Does the audit's test of spread accuse honest participants?

    Counts odd spreads among sets of honest, doubled and halved rows of several block sizes;
    ``runs`` is the number of judged sets. No rows come from blocks on which the reference's
    projection was fitted.
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
