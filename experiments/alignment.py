"""To what targets are aligned, and how: ``python -m experiments.alignment --scale cpu``.

The worst and the random reference are elected without the platform's test for noise.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from coopt_fl.core.seeding import derive_seed
from coopt_fl.policies.reference import Election
from experiments.agreement import Array, as_told, uniformity_alone
from experiments.table import Cell, Lab, Study, experiment

SOLVERS = ("none", "sgd", "lstsq", "procrustes")


def at_random(features: Mapping[str, Array], wanted: str, dim: int, seed: int) -> Election:
    """Elect any participant."""
    rng = np.random.default_rng(derive_seed(seed, "elect"))
    return as_told(features, list(features)[rng.integers(len(features))], dim, seed)


REFERENCES: dict[str, Cell] = {
    "worst": {"reference": "best", "elect": partial(uniformity_alone, choose=max)},
    "random": {"reference": "best", "elect": at_random},
    "best": {"reference": "best"},
    "consensus": {"reference": "consensus"},
}


def settings(study: Study) -> list[Cell]:
    """Return each reference with the default solver, and each other solver with the best prior."""
    rows = [{"reference": reference, "solver": "ridge"} for reference in REFERENCES]
    return rows + [{"reference": "best", "solver": solver} for solver in SOLVERS]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Train on targets so aligned."""
    how = REFERENCES[cell["reference"]] | {"solver": cell["solver"]}
    made = lab.collaborate(cell["seed"], **how)
    return lab.student(made, cell["seed"]) | {"r2": made.r2}


app = experiment(__name__, settings, measure)
