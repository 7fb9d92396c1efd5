"""Who may be the reference, and is noise ever? ``python -m experiments.election --scale cpu``.

The platform elects among the study's priors, one that has seen no image, and isotropic noise, whose
uniformity is the best of all. A cell holds shares of many draws of the shared set.
"""

from collections import Counter

import numpy as np

from coopt_fl.core.errors import ParticipantError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.policies.reference import elect
from experiments.table import Cell, Lab, Study, experiment

DRAWS = 30
SIZES = (8, 10, 13, 16, 25, 64, 260)


def settings(study: Study) -> list[Cell]:
    """Return a row for each size of the shared set."""
    return [{"shared": size} for size in SIZES]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Hold the elections."""
    seen, size = Counter[str](), cell["shared"]
    sound = {spec: lab.features(spec)[0] for spec in lab.study.priors}
    untrained = lab.features(lab.study.weak[0])[0]
    width = max(x.shape[1] for x in sound.values())
    for draw in range(DRAWS):
        seed = derive_seed(cell["seed"], "election", draw)
        at = lab.shared(size, seed)
        noise = np.random.default_rng(seed).standard_normal((size, width), np.float32)
        asked = {name: x[at] for name, x in sound.items()}
        try:
            election = elect(asked | {"untrained": untrained[at], "noise": noise}, "best", 1, seed)
        except ParticipantError:
            seen["no reference"] += 1
            continue
        seen.update(
            name if name in ("untrained", "noise") else "sound" for name in election.accepted
        )
        seen["noise elected"] += election.reference == "noise"
    return {
        "sound accepted": seen["sound"] / len(sound) / DRAWS,
        "untrained accepted": seen["untrained"] / DRAWS,
        "noise accepted": seen["noise"] / DRAWS,
        "noise elected": seen["noise elected"] / DRAWS,
        "no reference": seen["no reference"] / DRAWS,
    }


app = experiment(__name__, settings, measure)
