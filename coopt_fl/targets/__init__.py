"""The method: uniformity, projection, alignment, and the streaming optimization of images."""

from coopt_fl.targets.alignment import Alignment, HeldOut, fit_alignment, held_out
from coopt_fl.targets.collaborate import CONSENSUS, Recipe
from coopt_fl.targets.optimize import Encoded, optimize, represent
from coopt_fl.targets.projection import fit_projection
from coopt_fl.targets.uniformity import uniformity

__all__ = [
    "CONSENSUS",
    "Alignment",
    "Encoded",
    "HeldOut",
    "Recipe",
    "fit_alignment",
    "fit_projection",
    "held_out",
    "optimize",
    "represent",
    "uniformity",
]
