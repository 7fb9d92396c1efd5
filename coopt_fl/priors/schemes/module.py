"""``module:NAME@DIGEST``: a module that the calling program made, see ``Prior.from_module``."""

import copy

from torch import nn

from coopt_fl.data.image import Preprocess
from coopt_fl.given import taken
from coopt_fl.priors.spec import PriorSpec


def check(spec: PriorSpec) -> None:
    """Require the program's object."""
    taken(spec.name)


def load(spec: PriorSpec) -> tuple[nn.Module, Preprocess]:
    """Return a copy of the module, and its preprocessing."""
    prior = taken(spec.name)
    return copy.deepcopy(prior.model), prior.preprocess
