"""Which solver, projection and reference? ``python -m experiments.solvers --scale cpu``.

No student is trained: a linear classifier, fitted on the fused targets of the training images, is
tested on targets of the test images, which is an upper bound of what a student can reach. What the
target of a test image is matters: in ``reference`` it is the reference's own (of a consensus: the
mean of all participants'), in ``mean`` the mean of all participants', in ``each`` any one
participant's, averaged over the participants.

References are elected by uniformity alone: with 10 samples the platform's test cannot tell, and all
priors of the study are known to be sound.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from coopt_fl.targets.alignment import r2_score
from coopt_fl.targets.collaborate import CONSENSUS
from coopt_fl.targets.solvers import SOLVERS
from experiments.agreement import Array, Rows, uniformity_alone
from experiments.figures import lines
from experiments.table import Cell, Lab, Study, experiment

STRENGTHS = (1.0, 0.01)
"""C of the classifier: the project's own, and one that overfits less."""

SIZES = {
    "digits": (10, 30, 60, 120, 256, 500, 1000),
    "parquet": (10, 30, 60, 120, 250, 512, 1000, 2000, 5000),
}
"""Of the shared set, by source; elsewhere the study's."""

NORMALISATIONS = ("plain", "matched", "unit")
"""Targets as they are; with mean 0 and unit RMS over each participant's shard; of unit length."""

NORMALISED = ("ridge", "procrustes")
RANDOM_WITH = ("ridge", "procrustes", "sgd")
"""The solvers that are also tried with normalised targets, and on a random projection."""

Each = dict[str, Array]


def settings(study: Study) -> list[Cell]:
    """Return a row for each reference, projection, solver, size and normalisation tried."""
    rows = []
    for size in SIZES.get(study.data.source, study.sizes):
        kinds = [("best", "pca", solver) for solver in SOLVERS]
        kinds += [("best", "random", solver) for solver in RANDOM_WITH]
        if size >= 2 * study.dim:
            kinds += [(CONSENSUS, "pca", solver) for solver in SOLVERS if solver != "none"]
        for reference, projection, solver in kinds:
            row = {"reference": reference, "projection": projection, "solver": solver, "size": size}
            tried = NORMALISATIONS if solver in NORMALISED else NORMALISATIONS[:1]
            rows += [row | {"normalisation": how} for how in tried]
    return rows


def measure(lab: Lab, cell: Cell) -> Cell:
    """Return the R2 on test images, and accuracies by what the target of a test image is."""
    how = {key: cell[key] for key in ("reference", "projection", "solver")}
    agreed = lab.agree(cell["seed"], shared=cell["size"], elect=uniformity_alone, **how)
    tests = {
        name: agreed.targets(name, lab.features(spec, "test")[0])
        for name, spec in zip(agreed.features, lab.study.priors, strict=True)
    }
    reference = agreed.election.reference
    truth = own(tests, reference)
    others = [one for name, one in tests.items() if name != reference]
    found = {"r2_test": float(np.mean([r2_score(truth, one) for one in others]))}
    shards = {name: agreed.rows_of(name) for name in tests}
    ours = {
        name: agreed.targets(name, agreed.features[name][rows]) for name, rows in shards.items()
    }
    ours, tests = normalised(ours, tests, cell["normalisation"])
    wanted = [own(tests, reference), own(tests, CONSENSUS), *tests.values()]
    for c in STRENGTHS:
        scores = accuracies(lab, ours, shards, wanted, c)
        found |= {f"reference_c{c:g}": scores[0], f"mean_c{c:g}": scores[1]}
        found[f"each_c{c:g}"] = float(np.mean(scores[2:]))
    return found


def own(tests: Each, reference: str) -> Array:
    """Return the reference's targets; of a consensus the mean of all."""
    mean: Array = np.mean(list(tests.values()), axis=0)
    return tests.get(reference, mean)


def normalised(ours: Each, tests: Each, how: str) -> tuple[Each, Each]:
    """Return the targets (R, n) of each shard, and of test images, normalised as ``how`` says."""
    if how == "matched":
        means = {name: y.mean(axis=0) for name, y in ours.items()}
        scales = {name: np.sqrt(np.square(y - means[name]).mean()) for name, y in ours.items()}
        ours, tests = (
            {name: (y - means[name]) / scales[name] for name, y in each.items()}
            for each in (ours, tests)
        )
    if how == "unit":
        ours, tests = (
            {
                name: y / np.linalg.norm(y, axis=1, keepdims=True).clip(1e-12)
                for name, y in each.items()
            }
            for each in (ours, tests)
        )
    return ours, tests


def accuracies(
    lab: Lab, ours: Each, shards: dict[str, Rows], tests: list[Array], c: float
) -> list[float]:
    """Fit a classifier on fused targets; return its accuracy on several targets of test images.

    scikit-learn's, because it is 8 times faster here than ``fit_probe`` and finds the same optimum.

    Args:
        lab: Of the labels.
        ours: Targets (R, n) of each participant's shard.
        shards: Their rows.
        tests: Targets (N, n) of all test images.
        c: The strength of the classifier.
    """
    labels, test_labels = lab.labels()
    fused, rows = np.concatenate([*ours.values()]), np.concatenate([*shards.values()])
    scaler = StandardScaler().fit(fused)
    probe = LogisticRegression(C=c, max_iter=1000).fit(scaler.transform(fused), labels[rows])
    return [float(probe.score(scaler.transform(one), test_labels)) for one in tests]


draw = lines("size", "each_c1", normalisation="plain")
app = experiment(__name__, settings, measure, draw)
