"""t-SNE of targets: which of them are alike, drawn in the plane."""

import numpy as np
from numpy.typing import NDArray
from openTSNE import TSNE

from coopt_fl.core.seeding import derive_seed
from coopt_fl.report.parts import LeftOut
from coopt_fl.targets.linear import principal_scores

FEWEST = 12
"""Points below which there are too few neighbours to speak of."""

PERPLEXITY = 30.0


def embed(targets: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Return places (N, 2) of targets (N, n), compared by cosine.

    On one thread and with exact neighbours, so that a seed gives the same picture again.

    Raises:
        LeftOut: fewer than 12 targets.
    """
    if len(targets) < FEWEST:
        raise LeftOut(f"{len(targets)} samples are too few for a t-SNE")
    exact = np.asarray(targets, np.float64)
    unit = exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-12)
    fitted = TSNE(
        perplexity=min(PERPLEXITY, (len(unit) - 1) / 3),
        initialization="pca",
        neighbors="exact",
        negative_gradient_method="bh",
        n_jobs=1,
        random_state=derive_seed(seed, "report", "tsne") % 2**32,
    ).fit(unit)
    places = np.asarray(fitted, np.float64)
    centred = places - places.mean(axis=0)
    return principal_scores(centred, 2)  # a t-SNE has no orientation of its own: lay it flat
