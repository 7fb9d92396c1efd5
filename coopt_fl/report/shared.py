"""Every participant's targets of the shared set, before and after alignment."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional

from coopt_fl.core.seeding import derive_seed
from coopt_fl.federation.records import Records
from coopt_fl.federation.state import RunState
from coopt_fl.report.collect import Run
from coopt_fl.report.parts import LeftOut
from coopt_fl.targets import held_out
from coopt_fl.targets.collaborate import apply
from coopt_fl.targets.linear import as_matrix, principal_scores, root_mean_square

MOST = 1500
"""Most points of a figure, and most rows that are compared with each other."""

PROJECTION = "projection:"
"""Prefix of an alignment's solver if it is the reference's projection, not fitted on S."""

Ids = NDArray[np.int64]
Targets = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Views:
    """Targets of the same shared samples by each of K participants.

    Attributes:
        names: the K participants.
        solvers: the solver of each participant's alignment.
        ids: (S',), a subset of the shared set.
        before: (K, S', D'), without alignment: each prior's own principal components.
        after: (K, S', D), by alignments that were fitted without the sample (cross-validated).
    """

    names: list[str]
    solvers: list[str]
    ids: Ids
    before: Targets
    after: Targets


def shared_views(run: Run) -> Views:
    """Return every participant's targets of the shared set, with and without alignment.

    Raises:
        LeftOut: fewer than two participants' features and alignments are stored.
        OutputError: a file of the state is damaged.
    """
    state = RunState(run.path)
    if not state.folder.is_dir():
        raise LeftOut("the platform's state/, which holds the features, is not in this directory")
    records = Records(state)
    known = [one.name for one in run.provenance.contributors] if run.provenance else []
    names = [
        one for one in known if records.has("features", one) and records.has("alignments", one)
    ]
    settled = records.shared_targets()
    if settled is None or len(names) < 2:
        raise LeftOut("one prior alone made the targets, so nothing was aligned")
    seen, features = records.features(names)
    common = np.intersect1d(settled[0], seen)
    y = settled[1][np.isin(settled[0], common)]
    shown = choose(len(common), MOST // len(names), run.seed)
    dim = min(y.shape[1], len(common) - 1)
    maps = [records.alignment(name) for name in names]
    before, after = [], []
    for name, fitted in zip(names, maps, strict=True):
        x = features[name][np.isin(seen, common)]
        before.append(_own(x, dim)[shown])
        if fitted.solver.startswith(PROJECTION):  # not fitted on the shared set: all held out
            after.append(apply(fitted, x)[shown])
        else:
            seed = derive_seed(run.seed, "align", name)
            after.append(held_out(x, y, fitted.solver, seed).targets[shown])
    return Views(
        names=names,
        solvers=[fitted.solver for fitted in maps],
        ids=common[shown],
        before=np.stack(before),
        after=np.stack(after),
    )


def matches(targets: Targets) -> list[float]:
    """Return how often the nearest target of another participant is of the same sample.

    Args:
        targets: (K, S, D), compared by cosine.

    Returns:
        The share for each participant, averaged over the others; 1 / S by chance.
    """
    units = unit(targets)
    found = []
    for mine in range(len(units)):
        others = [one for one in range(len(units)) if one != mine]
        nearest = [(units[mine] @ units[one].T).argmax(1) for one in others]
        found.append(float(np.mean([place == np.arange(units.shape[1]) for place in nearest])))
    return found


def unit(targets: NDArray[Any]) -> NDArray[np.float64]:
    """Return targets (..., D), L2-normalised."""
    wide = targets.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    return np.asarray(wide / np.maximum(lengths, 1e-12))


def choose(rows: int, most: int, seed: int) -> Ids:
    """Return a seeded choice of at most ``most`` of ``rows`` rows, ascending."""
    generator = np.random.default_rng(derive_seed(seed, "report", rows))
    return np.sort(generator.permutation(rows)[:most])


def _own(features: Targets, dim: int) -> Targets:
    """Return features (S, M) projected on their first ``dim`` principal axes, at unit RMS."""
    x = as_matrix(features, "features")
    scores = principal_scores(x - x.mean(dim=0), min(dim, x.shape[1]))
    wide = functional.pad(scores, (0, dim - scores.shape[1]))
    own: Targets = (wide / root_mean_square(wide)).float().numpy()
    return own
