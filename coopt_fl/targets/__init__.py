"""What a sample is assigned: uniformity, reference, alignment, and streaming optimization."""

from coopt_fl.targets.alignable import Alignability, alignability
from coopt_fl.targets.alignment import Alignment, fit_alignment, heldout_r2, heldout_targets
from coopt_fl.targets.consensus import consensus_targets
from coopt_fl.targets.optimize import BlockTargets, optimize, represent
from coopt_fl.targets.projection import fit_projection
from coopt_fl.targets.uniformity import uniformity

__all__ = [
    "Alignability",
    "Alignment",
    "BlockTargets",
    "alignability",
    "consensus_targets",
    "fit_alignment",
    "fit_projection",
    "heldout_r2",
    "heldout_targets",
    "optimize",
    "represent",
    "uniformity",
]
