"""The shared set as every participant sees it: what alignment does, on samples it did not know."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coopt_fl.core.seeding import derive_seed
from coopt_fl.federation.state import RunState
from coopt_fl.report.collect import Run
from coopt_fl.report.parts import LeftOut
from coopt_fl.targets import Alignment, held_out
from coopt_fl.targets.linear import as_matrix, principal_scores, root_mean_square

MOST = 1500
"""Most points of a figure, and most rows that are compared with each other."""

PROJECTION = "projection:"
"""How the solver of a map begins that was not fitted on the shared set."""

Ids = NDArray[np.int64]
Targets = NDArray[np.float32]
Stored = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Views:
    """Targets of the same shared samples by each of K participants.

    Attributes:
        names: the participants.
        solvers: how each was aligned.
        size: shared samples that all of them could read.
        ids: (S',) those that are compared.
        before: (K, S', n') each prior's own principal components: no alignment.
        after: (K, S', n) what alignments make of them that were fitted without that sample.
    """

    names: list[str]
    solvers: list[str]
    size: int
    ids: Ids
    before: Targets
    after: Targets


def shared_views(run: Run) -> Views:
    """Return the shared samples as every participant sees them, aligned and not.

    Raises:
        LeftOut: there are not two participants whose features and alignments are stored.
        OutputError: a file of the state is damaged.
    """
    state = run.state
    settled = state.arrays("shared_targets")
    if not state.folder.is_dir():
        raise LeftOut("the platform's state/, which holds the features, is not in this directory")
    listed = run.provenance.contributors if run.provenance else []
    names = [one.name for one in listed if _complete(state, one.name)]
    if settled is None or len(names) < 2:
        raise LeftOut("one prior alone made the targets, so nothing was aligned")
    features = [state.arrays(f"features/{name}") or {} for name in names]
    maps = [state.arrays(f"alignments/{name}") or {} for name in names]
    common: Ids = settled["ids"]
    for stored in features:
        common = np.intersect1d(common, stored["ids"])
    x = [stored["features"][np.isin(stored["ids"], common)] for stored in features]
    y = settled["targets"][np.isin(settled["ids"], common)]
    shown = choose(len(common), MOST // len(names), run.seed)
    dim = min(y.shape[1], len(common) - 1)
    aligned = [
        _unknown(map_, one, y, derive_seed(run.seed, "align", name))
        for map_, one, name in zip(maps, x, names, strict=True)
    ]
    return Views(
        names=names,
        solvers=[str(map_["solver"]) for map_ in maps],
        size=len(common),
        ids=common[shown],
        before=np.stack([_own(one, dim) for one in x])[:, shown],
        after=np.stack(aligned)[:, shown],
    )


def matches(targets: Targets) -> list[float]:
    """Return how often the nearest target of another participant is of the same sample.

    Args:
        targets: (K, S, n), compared by cosine.

    Returns:
        For each participant the mean over the others, 1 / S by chance.
    """
    unit = targets / np.maximum(np.linalg.norm(targets, axis=2, keepdims=True), 1e-12)
    found = []
    for mine in range(len(unit)):
        others = [one for one in range(len(unit)) if one != mine]
        nearest = [(unit[mine] @ unit[one].T).argmax(1) for one in others]
        found.append(float(np.mean([place == np.arange(unit.shape[1]) for place in nearest])))
    return found


def choose(rows: int, most: int, seed: int) -> Ids:
    """Return at most ``most`` of ``rows`` rows, ascending, by seed."""
    generator = np.random.default_rng(derive_seed(seed, "report", rows))
    return np.sort(generator.permutation(rows)[:most])


def _complete(state: RunState, name: str) -> bool:
    return state.has_arrays(f"features/{name}") and state.has_arrays(f"alignments/{name}")


def _own(features: Targets, dim: int) -> Targets:
    """Return features (S, m) in their own first ``dim`` principal axes, at unit RMS."""
    x = as_matrix(features, "features")
    scores = principal_scores(x - x.mean(axis=0), min(dim, x.shape[1]))
    wide = np.pad(scores, ((0, 0), (0, dim - scores.shape[1])))
    return (wide / root_mean_square(wide)).astype(np.float32)


def _unknown(stored: Stored, features: Targets, targets: Targets, seed: int) -> Targets:
    """Return targets (S, n) by alignments that did not know the sample; a projection never did."""
    solver = str(stored["solver"])
    if not solver.startswith(PROJECTION):
        return held_out(features, targets, solver, seed).targets
    known = Alignment(stored["weight"], stored["bias"], solver)
    return known.apply(torch.from_numpy(features)).numpy()
