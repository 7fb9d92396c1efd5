"""Ten participants of many kinds, on one unlabeled set of several domains."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from coopt_fl.policies.reference import Election, elect
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.classifier import fit_linear, fit_probe
from coopt_fl.targets import CONSENSUS
from experiments.agreement import Array
from experiments.lab import SPLITS, Lab, Made
from experiments.scales import Study
from experiments.specialists import of_crowd, trained_weights
from experiments.table import Cell, table

PRIOR, STUDENT = "prior", "student"
"""Whether a probe judges a prior's features or a student's."""


def wide_enough(features: Mapping[str, Array], wanted: str, dim: int, seed: int) -> Election:
    """Elect as the platform does, among the participants whose features are as wide as a target.

    The platform would stop if the most uniform prior were narrower.
    """
    return elect({n: x for n, x in features.items() if x.shape[1] >= dim}, wanted, dim, seed)


BEST: Cell = {"reference": "best", "elect": wide_enough}
TOGETHER: dict[str, Cell] = {
    CONSENSUS: {},
    "best": BEST,
    "consensus, 3 replicas": {"replicas": 3},
}
"""How a crowd makes targets, with equal shards."""


def central(study: Study) -> list[Cell]:
    """Return a row for a student on each kind of targets, and one for each prior itself."""
    priors = of_crowd(study)
    rows = [{"targets": how, "features": STUDENT} for how in (*TOGETHER, *priors)]
    return rows + [{"targets": spec, "features": PRIOR} for spec in priors]


@table(central)
def crowd_central(lab: Lab, cell: Cell) -> Cell:
    """Is a collaboration's student better than each prior's, and than the prior itself?

    ``accuracy`` is that of one probe of all domains. ``DOMAIN`` is that of a probe of the domain
    alone; ``DOMAIN, one probe`` is that of the probe of all domains on the domain's images.
    """
    how, seed = cell["targets"], cell["seed"]
    if cell["features"] == PRIOR:
        pairs = zip(SPLITS, lab.labels(), strict=True)
        return by_domain(lab, [lab.features(how, split)[0][y >= 0] for split, y in pairs])
    made: Made
    if how in TOGETHER:
        made = lab.collaborate(seed, priors=of_crowd(lab.study), **TOGETHER[how])
    else:
        made = lab.centralize(how, seed)
    return student(lab, made, seed)


def student(lab: Lab, made: Made, seed: int) -> Cell:
    """Train a student, and judge it by domain."""

    def judge(trained: LoadedStudent) -> Cell:
        return by_domain(lab, [x.cpu().numpy() for x, _ in lab.judge.encode(trained)])

    return lab.student(made, seed, judge=judge) | {"specialists": trained_weights(lab.study)}


def by_domain(lab: Lab, features: Sequence[Array]) -> Cell:
    """Return accuracies, over all and by domain, on features of labeled train and test images.

    Args:
        lab: The study.
        features: (R, m) for each split, of the images with a label.
    """
    known = [labels >= 0 for labels in lab.labels()]
    here, there = (lab.domains(split)[k] for split, k in zip(SPLITS, known, strict=True))
    y, w = (torch.from_numpy(one[k]) for one, k in zip(lab.labels(), known, strict=True))
    x, z = map(torch.from_numpy, features)
    right = (fit_linear(x, y).predict(z) == w).double()
    found, names = {"accuracy": float(right.mean())}, np.unique(there).tolist()
    for name in names:
        fit, test = here == name, there == name
        found[name] = fit_probe(x[fit], y[fit], z[test], w[test])
    found["mean of the domains"] = float(np.mean([found[name] for name in names]))
    return found | {f"{name}, one probe": float(right[there == name].mean()) for name in names}
