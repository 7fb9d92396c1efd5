"""``random:NAME``: an architecture of timm or torchvision with seeded random weights.

For studies of weak priors; besides ``trivial``, the only scheme without trained weights.
"""

import timm
import torch
from torch import nn

from coopt_fl.core.errors import PriorError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data.image import Preprocess
from coopt_fl.priors.schemes import timm as timm_scheme
from coopt_fl.priors.schemes import torchvision as torchvision_scheme
from coopt_fl.priors.spec import NOTHING, PriorSpec, nearest


def check(spec: PriorSpec) -> None:
    """Require a known architecture."""
    known = torchvision_scheme.names()
    if not timm.is_model(spec.name) and spec.name not in known:
        hint = nearest(spec.name, [*timm.list_models(), *known])
        raise PriorError(f"neither timm nor torchvision has {spec.name!r}{hint}")


def load(spec: PriorSpec) -> tuple[nn.Module, Preprocess]:
    """Build the architecture with seeded weights; timm's if both libraries have it."""
    seed = derive_seed(0, "random", spec.name) if spec.seed is None else spec.seed
    torch.default_generator.manual_seed(seed)
    if timm.is_model(spec.name):
        return timm_scheme.load(spec, pretrained=False)
    return torchvision_scheme.load(spec, pretrained=False)


def license(spec: PriorSpec) -> str:
    """Say that there is nothing to license."""
    return NOTHING
