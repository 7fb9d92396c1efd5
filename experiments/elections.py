"""Elections among many priors: permutations of every pair, or of a sample of pairs."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from coopt_fl.core.seeding import derive_seed
from coopt_fl.targets import uniformity
from coopt_fl.targets.alignable import MOST_PAIRED, alignability
from experiments.agreement import Array, Rows
from experiments.lab import Lab
from experiments.ours import SIZES
from experiments.scales import Study
from experiments.table import Cell, table

KINDS = {"sound": 40, "untrained": 8, "noise": 12}
"""Number of candidates of each kind."""

SAMPLED = "of a sample of pairs"
ORDERS = {"of each pair": sum(KINDS.values()), SAMPLED: MOST_PAIRED}
"""Most priors up to which the test of alignability permutes the rows of every pair; with more it
permutes those of a sample of pairs."""

DRAWS = 5


def _rows(study: Study) -> list[Cell]:
    small = study.data.source == "synthetic"
    return [
        {"shared": size, "orders": orders}
        for size in (SIZES[2:3] if small else SIZES)
        for orders in ORDERS
        if orders == SAMPLED or (size < 64 and not small)  # permuting every pair takes minutes
    ]


@table(_rows)
def crowded_election(lab: Lab, cell: Cell) -> Cell:
    """Which of sixty candidates may be the reference, and is noise ever elected?

    Each sound candidate has a random half of the features of one of the study's priors, each
    untrained one half of those of an untrained prior. Shares are of the candidates of a kind over
    all draws of the shared set, or of the draws.
    """
    seen, draws = Counter[str](), DRAWS if len(lab.study.seeds) > 1 else 1
    for draw in range(draws):
        seed = derive_seed(cell["seed"], "election", draw)
        asked = list(_candidates(lab, lab.shared(cell["shared"], seed), seed))
        priors = [features for _, features in asked]
        verdicts = alignability(priors, seed, most_paired=ORDERS[cell["orders"]])
        accepted = [k for k, verdict in enumerate(verdicts) if verdict.alignable]
        best = min(accepted, key=lambda k: uniformity(priors[k]), default=None)
        seen.update(asked[k][0] for k in accepted)
        seen["elected"] += best is not None and asked[best][0] == "noise"
        seen["nobody"] += best is None
    shares = {f"{kind} accepted": seen[kind] / count / draws for kind, count in KINDS.items()}
    rest = {"noise elected": seen["elected"] / draws, "no reference": seen["nobody"] / draws}
    return shares | rest


def _candidates(lab: Lab, at: Rows, seed: int) -> Iterator[tuple[str, Array]]:
    """Yield each candidate's kind and its features of the shared set."""
    rng = np.random.default_rng(derive_seed(seed, "candidates"))
    priors = {"sound": lab.study.priors, "untrained": lab.study.weak[:1]}
    for kind, count in KINDS.items():
        for k in range(count):
            if kind == "noise":
                yield kind, rng.standard_normal((len(at), 1280), np.float32)
            else:
                whole = lab.features(priors[kind][k % len(priors[kind])])[0]
                half = rng.permutation(whole.shape[1])[: whole.shape[1] // 2]
                yield kind, whole[np.ix_(at, half)]
