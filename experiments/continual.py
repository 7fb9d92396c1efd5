"""Cycles with better and better priors.

In every cycle one better prior arrives and takes over one shard: the one with the least uniform
prior, with the best prior as the reference, as in the paper; or the oldest, with a consensus.
Then the reference is determined anew, and the other shards are

- ``left``: not changed, and so still aligned to the old reference;
- ``realigned``: mapped from the old reference to the new one, without any prior;
- ``recomputed``: made again, at the full cost;
- ``as needed``: realigned if that is accurate enough, else recomputed.
"""

import time
from dataclasses import replace
from statistics import fmean

import numpy as np

from coopt_fl.targets import fit_alignment, held_out
from coopt_fl.targets.collaborate import apply
from experiments.figures import cycles
from experiments.lab import Lab, Made
from experiments.table import Cell, table

WAYS = ("left", "realigned", "recomputed", "as needed")
ENOUGH = 0.9
"""Held-out R2 on the shared set, between realigned old targets and those that the prior would give
now, from which on realignment is accurate enough."""

RULES = {"least uniform": "best", "oldest": "consensus"}
"""The reference by the rule that chooses the shard to take over."""

SHARDS = 3


@table(lambda _: [{"taken over": r, "old shards": way} for r in RULES for way in WAYS], cycles)
def continual(lab: Lab, cell: Cell) -> Cell:
    """Run all cycles, and train a student after each."""
    seed, rule, played, seconds, shards = cell["seed"], cell["taken over"], [], 0.0, 0
    owners = [lab.study.ladder[0]] * SHARDS
    fresh = lab.collaborate(seed, priors=owners, reference=RULES[rule])
    made: Made = fresh
    for cycle, arrived in enumerate(lab.study.ladder):
        worst = cycle % SHARDS
        if rule == "least uniform":
            worst = int(np.argmax(list(fresh.agreed.election.uniformity.values())))
        owners[worst] = arrived
        fresh = lab.collaborate(seed, priors=owners, reference=RULES[rule])
        made = kept(made, fresh, worst, cell["old shards"], seed)
        on_s = lab.features(arrived)[1] * lab.study.shared / len(lab.all)
        seconds += on_s + sum(made.optimize) + made.align
        shards += len(made.optimize)
        found = lab.student(made, seed)
        played.append({"prior": arrived, "accuracy": found["accuracy"], "seconds": seconds})
    return {
        "accuracy": played[-1]["accuracy"],
        "mean over cycles": fmean(one["accuracy"] for one in played),
        "preparation s": seconds,
        "shards made": float(shards),
        "cycles": played,
    }


def kept(old: Made, fresh: Made, worst: int, way: str, seed: int) -> Made:
    """Return the new cycle's targets, in which participant ``worst`` has fresh ones.

    The time of realignment, also if it was only tried, is added to ``align``.
    """
    if way == "recomputed":
        return fresh
    targets, on_s, align = fresh.targets.copy(), list(fresh.on_s), fresh.align
    optimize = [fresh.optimize[worst]]
    for k in set(range(SHARDS)) - {worst}:
        rows = fresh.participants == k
        known, known_on_s = old.targets[rows], old.on_s[k]
        if way != "left":
            started = time.perf_counter()
            terms = known_on_s, fresh.on_s[k], "ridge", seed
            enough = way == "realigned" or held_out(*terms).r2 >= ENOUGH
            if enough:
                change = fit_alignment(*terms)
                known, known_on_s = apply(change, known), apply(change, known_on_s)
            align += time.perf_counter() - started
            if not enough:
                optimize.append(fresh.optimize[k])
                continue
        targets[rows], on_s[k] = known, known_on_s
    return replace(fresh, targets=targets, on_s=on_s, optimize=optimize, align=align)
