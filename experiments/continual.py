"""Cycles with ever better priors: ``python -m experiments.continual --scale cpu``.

In every cycle one better prior arrives and takes over one shard: the one whose prior is the least
uniform, with the most uniform prior as the reference, as in the paper; or the oldest, with a
consensus. Then the reference is made anew, and the other shards are

- ``left``: as they are, in the old reference's terms;
- ``realigned``: mapped from the old reference's terms to the new one's, without any prior;
- ``recomputed``: made again, at the full cost.
"""

import time
from dataclasses import replace
from statistics import fmean

import numpy as np

from coopt_fl.targets import fit_alignment, uniformity
from experiments.figures import cycles
from experiments.lab import Lab, Made, apply
from experiments.scales import Study
from experiments.table import Cell, experiment

WAYS = ("left", "realigned", "recomputed")
RULES = {"least uniform": "best", "oldest": "consensus"}
"""The reference that goes with each way to choose the shard that is taken over."""

SHARDS = 3


def settings(study: Study) -> list[Cell]:
    """Return a row for each way to treat what is there, and to choose what is not kept."""
    return [{"taken over": rule, "old shards": way} for rule in RULES for way in WAYS]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Play all cycles, with a student after each."""
    seed, rule, played, seconds = cell["seed"], cell["taken over"], [], 0.0
    owners = [lab.study.ladder[0]] * SHARDS
    made = lab.collaborate(seed, priors=owners, reference=RULES[rule])
    for cycle, arrived in enumerate(lab.study.ladder):
        at = lab.shared(lab.study.shared, seed)
        worst = cycle % SHARDS
        if rule == "least uniform":
            worst = int(np.argmax([uniformity(lab.features(owner)[0][at]) for owner in owners]))
        owners[worst] = arrived
        fresh = lab.collaborate(seed, priors=owners, reference=RULES[rule])
        made = kept(lab, made, fresh, worst, cell["old shards"], seed)
        on_s = lab.features(arrived)[1] * len(at) / len(lab.all)
        seconds += on_s + sum(made.optimize) + made.align
        found = lab.student(made, seed)
        played.append({"prior": arrived, "accuracy": found["accuracy"], "seconds": seconds})
    return {
        "accuracy": played[-1]["accuracy"],
        "mean over cycles": fmean(one["accuracy"] for one in played),
        "preparation s": seconds,
        "cycles": played,
    }


def kept(lab: Lab, old: Made, fresh: Made, worst: int, way: str, seed: int) -> Made:
    """Return the new cycle's targets: those of shard ``worst`` are fresh.

    What realignment takes is added to ``align``.
    """
    if way == "recomputed":
        return fresh
    targets, on_s, align = fresh.targets.copy(), list(fresh.on_s), fresh.align
    for k, rows in enumerate(lab.shards(SHARDS, seed)):
        if k == worst:
            continue
        targets[rows], on_s[k] = old.targets[rows], old.on_s[k]
        if way == "realigned":
            started = time.perf_counter()
            change = fit_alignment(old.on_s[k], fresh.on_s[k], "ridge", seed)
            targets[rows], on_s[k] = apply(change, targets[rows]), apply(change, on_s[k])
            align += time.perf_counter() - started
    return replace(fresh, targets=targets, on_s=on_s, optimize=[fresh.optimize[worst]], align=align)


app = experiment("continual", settings, measure, cycles)

if __name__ == "__main__":
    app()
