"""How large must the shared set be? ``python -m experiments.shared_size --scale cpu``.

A consensus needs twice as many samples as a target has numbers. Where the platform finds no
reference and stops (always below 7 samples, sometimes with a few more), the reference of this table
is the most uniform prior; ``elected by`` of such a cell is ``uniformity alone``.
"""

from collections.abc import Mapping
from dataclasses import replace

from coopt_fl.core.errors import ParticipantError
from coopt_fl.policies.reference import Election, elect
from experiments.agreement import Array, uniformity_alone
from experiments.table import Cell, Lab, Study, experiment

ALONE = "uniformity alone"


def elect_anyhow(features: Mapping[str, Array], wanted: str, dim: int, seed: int) -> Election:
    """Elect as the platform does; by uniformity alone where it finds no reference."""
    try:
        return elect(features, wanted, dim, seed)
    except ParticipantError:
        alone = uniformity_alone(features, wanted, dim, seed)
        return replace(alone, warnings=[ALONE])


def settings(study: Study) -> list[Cell]:
    """Return a row for each size, with either reference where it is possible."""
    rows = [{"shared": size, "reference": "best"} for size in study.sizes]
    large = [size for size in study.sizes if size >= 2 * study.dim]
    return rows + [{"shared": size, "reference": "consensus"} for size in large]


def measure(lab: Lab, cell: Cell) -> Cell:
    """Train on targets that so many samples aligned."""
    how = {"shared": cell["shared"], "reference": cell["reference"]}
    made = lab.collaborate(cell["seed"], elect=elect_anyhow, **how)
    found = lab.student(made, cell["seed"]) | {"r2": made.r2}
    return found | ({"elected by": ALONE} if ALONE in made.agreed.election.warnings else {})


app = experiment(__name__, settings, measure)
