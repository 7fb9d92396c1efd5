"""What an upload may tell of one image: rows are clipped and noised, the loss is accounted for.

Given a prior and an alignment, a row of features or of targets depends on one image alone, and
alignments are made of rows that were released before. So every row that leaves a participant is
one Gaussian mechanism. Adjacency: one image is replaced by another; both rows lie in the ball of
radius C = clip * sqrt(width), so they are at most 2 C apart.
"""

from coopt_fl.privacy.accounting import check, count_releases, epsilon, summary
from coopt_fl.privacy.release import Guard, half, normalise, read_secret

__all__ = [
    "Guard",
    "check",
    "count_releases",
    "epsilon",
    "half",
    "normalise",
    "read_secret",
    "summary",
]
