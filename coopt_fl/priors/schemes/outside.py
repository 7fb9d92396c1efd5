"""``python:MODULE:FUNCTION``: the prior that an imported function returns."""

from torch import nn

from coopt_fl.data.image import Preprocess
from coopt_fl.plugins import function
from coopt_fl.priors.spec import PriorSpec


def check(spec: PriorSpec) -> None:
    """Require the function to be importable."""
    function(spec.name)


def load(spec: PriorSpec) -> tuple[nn.Module, Preprocess]:
    """Call the function with the spec; it returns a module and its preprocessing."""
    made: tuple[nn.Module, Preprocess] = function(spec.name)(spec)
    return made
