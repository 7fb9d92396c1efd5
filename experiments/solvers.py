"""Comparison of solvers, projections and references.

No student is trained. A linear classifier, fitted on the fused targets of the training images, is
tested on targets of the test images, which gives an upper bound on a student's accuracy. There are
three kinds of test targets: ``reference`` is the reference's own (for a consensus, the mean of all
participants'), ``mean`` the mean of all participants', and ``each`` a single participant's, with
accuracies averaged over the participants.

References are elected by uniformity alone, because with 10 samples the platform's test cannot
decide, and all priors of the study are known to be sound.
"""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from coopt_fl.registry import PARTS
from coopt_fl.targets import CONSENSUS
from coopt_fl.targets.alignment import r2_score
from experiments.agreement import Agreed, Array, uniformity_alone
from experiments.figures import lines
from experiments.lab import Lab
from experiments.scales import Study
from experiments.table import Cell, table

STRENGTHS = (1.0, 0.01)
"""C of the classifier: the probe's own, and one that overfits less."""

SIZES = {
    "digits": (10, 30, 60, 120, 256, 500, 1000),
    "parquet": (10, 30, 60, 120, 250, 512, 1000, 2000, 5000),
}
"""Sizes of the shared set by source; other sources use the study's ``sizes``."""

NORMALISATIONS = ("plain", "matched", "unit")
"""Targets unchanged; with mean 0 and unit RMS over each participant's shard; of unit length."""

NORMALISED = ("ridge", "procrustes")
RANDOM_WITH = ("ridge", "procrustes", "sgd")
"""Solvers that are also tried with normalised targets, and with a random projection."""

Each = dict[str, Array]


def tried(study: Study) -> list[Cell]:
    """Return a row for each reference, projection, solver, size and normalisation tried."""
    rows = []
    for size in SIZES.get(study.data.source, study.sizes):
        kinds = [("best", "pca", solver) for solver in PARTS.shipped("solver")]
        kinds += [("best", "random", solver) for solver in RANDOM_WITH]
        if size >= 2 * study.dim:
            kinds += [
                (CONSENSUS, "pca", solver) for solver in PARTS.shipped("solver") if solver != "none"
            ]
        for reference, projection, solver in kinds:
            row = {"reference": reference, "projection": projection, "solver": solver, "size": size}
            ways = NORMALISATIONS if solver in NORMALISED else NORMALISATIONS[:1]
            rows += [row | {"normalisation": how} for how in ways]
    return rows


@table(tried, lines("size", "each_c1", normalisation="plain"))
def solvers(lab: Lab, cell: Cell) -> Cell:
    """Return the R2 on test images, and accuracies by the kind of test targets."""
    how = {key: cell[key] for key in ("reference", "projection", "solver")}
    agreed = lab.agree(cell["seed"], shared=cell["size"], elect=uniformity_alone, **how)
    reference = agreed.election.reference
    ours, tests = {}, {}
    for name, spec in zip(agreed.features, lab.study.priors, strict=True):
        ours[name] = agreed.targets(name, agreed.features[name][agreed.rows_of(name)])
        tests[name] = agreed.targets(name, lab.features(spec, "test")[0])
    truth = own(tests, reference)
    others = [one for name, one in tests.items() if name != reference]
    found = {"r2_test": float(np.mean([r2(truth, one) for one in others]))}
    for name, shard in ours.items():
        change = normaliser(shard, cell["normalisation"])
        ours[name], tests[name] = change(shard), change(tests[name])
    wanted = [own(tests, reference), own(tests, CONSENSUS), *tests.values()]
    for c, scores in accuracies(lab, agreed, ours, wanted).items():
        found |= {f"reference_c{c:g}": scores[0], f"mean_c{c:g}": scores[1]}
        found[f"each_c{c:g}"] = float(np.mean(scores[2:]))
    return found


def r2(truth: Array, found: Array) -> float:
    """Return the share of the variance of ``truth`` (N, n) that ``found`` explains."""
    return r2_score(torch.from_numpy(truth), torch.from_numpy(found))


def own(tests: Each, reference: str) -> Array:
    """Return the reference's targets; for a consensus the mean of all."""
    mean: Array = np.mean(list(tests.values()), axis=0)
    return tests.get(reference, mean)


def normaliser(shard: Array, how: str) -> Callable[[Array], Array]:
    """Return the normalisation ``how`` for targets of the participant with this shard (R, n)."""
    if how == "unit":
        return lambda targets: targets / np.linalg.norm(targets, axis=1, keepdims=True).clip(1e-12)
    if how == "plain":
        return lambda targets: targets
    mean = shard.mean(axis=0)
    scale = np.sqrt(np.square(shard - mean).mean())
    return lambda targets: (targets - mean) / scale


def accuracies(
    lab: Lab, agreed: Agreed, ours: Each, tests: list[Array]
) -> dict[float, list[float]]:
    """Fit classifiers on fused targets; return their accuracies on several targets of test images.

    It uses scikit-learn directly, which was 8 times faster here than ``fit_probe`` and finds the
    same optimum.

    Args:
        lab: The study with its labels.
        agreed: The agreement with its shards.
        ours: Targets (R, n) of each participant's shard.
        tests: Several kinds of targets (N, n) of all test images.

    Returns:
        One accuracy for each of ``tests``, by the C of the classifier.
    """
    labels, test_labels = lab.labels()
    fused = np.concatenate([*ours.values()])
    rows = np.concatenate([agreed.rows_of(name) for name in ours])
    scaler = StandardScaler().fit(fused)
    found = {}
    for c in STRENGTHS:
        probe = LogisticRegression(C=c, max_iter=1000).fit(scaler.transform(fused), labels[rows])
        found[c] = [float(probe.score(scaler.transform(one), test_labels)) for one in tests]
    return found
