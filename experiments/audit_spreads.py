"""Does the audit's test of spread accuse the honest? ``python -m experiments.audit_spreads``.

Counts of odd spreads among rows of any block size: as they are, doubled and halved. Nothing else is
said of them, and they are of no block that the reference's projection was fitted on.
"""

from collections import Counter, defaultdict
from functools import lru_cache
from itertools import product

import numpy as np

from coopt_fl.core.seeding import derive_seed
from coopt_fl.policies.audit import odd_spread
from experiments.audit import FRACTIONS, HONEST_RUNS, played, runs
from experiments.figures import lines
from experiments.table import Cell, Lab, Study, experiment

ROWS = (20, 40, 64, 128, 512, 1024, 4096)
PREDICTS = 0.1
"""R2 above which the audit takes held-out targets to be as wide as those of other samples."""

FACTORS = {"honest": 1.0, "doubled": 2.0, "halved": 0.5}


def settings(study: Study) -> list[Cell]:
    """Return a row for each |S|, whether held-out targets predict anything, and block size."""
    sizes = dict.fromkeys(run["size"] for run in runs(study))
    return [
        {"size": size, "predicts": predicts, "rows": rows}
        for size in sizes
        for predicts in (True, False)
        for rows in ROWS
    ]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Look a row's counts up; ``runs`` is how many sets of rows were judged."""
    counts = counted(lab, cell["size"], cell["seed"])[cell["predicts"], cell["rows"]]
    return {name: float(counts[name]) for name in ("runs", *FACTORS)}


@lru_cache(maxsize=1)  # consecutive rows share it
def counted(lab: Lab, size: int, seed: int) -> dict[tuple[bool, int], Counter[str]]:
    """Count odd spreads in all runs with ``size`` shared samples, by what is in a row."""
    found = defaultdict[tuple[bool, int], Counter[str]](Counter)
    kinds = [run | {"fraction": FRACTIONS[-1]} for run in runs(lab.study) if run["size"] == size]
    for kind, draw in product(kinds, range(HONEST_RUNS)):
        run = played(lab, kind, derive_seed(seed, "audit", draw))
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


app = experiment(__name__, settings, measure, lines("rows", "honest"))
