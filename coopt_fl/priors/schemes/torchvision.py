"""``torchvision:NAME/WEIGHTS``: torchvision's classifiers with a named set of weights."""

from typing import Any

from torch import nn
from torchvision import models

from coopt_fl.core.errors import PriorError
from coopt_fl.data.image import Preprocess, as_preprocess
from coopt_fl.priors import hub
from coopt_fl.priors.spec import PriorSpec, nearest


def check(spec: PriorSpec) -> None:
    """Require known weights that are here or can be fetched."""
    name, _, tag = spec.name.partition("/")
    if name not in names():
        raise PriorError(f"torchvision has no classifier {name!r}{nearest(name, names())}")
    known = models.get_model_weights(name).__members__
    if tag not in known:
        forms = ", ".join(f"torchvision:{name}/{each}" for each in known)
        raise PriorError(f"name one of its weights: {forms}")
    hub.require(hub.at_url(known[tag].url))


def load(spec: PriorSpec) -> tuple[nn.Module, Preprocess]:
    """Build the model with its weights and without its classifier."""
    name, _, tag = spec.name.partition("/")
    weights = models.get_model_weights(name)[tag]
    model = models.get_model(name, weights=weights, progress=False)
    return _headless(model, weights), _preprocess_of(weights, spec)


def untrained(spec: PriorSpec) -> tuple[nn.Module, Preprocess]:
    """Build the architecture ``spec.name`` from torch's random state, without its classifier."""
    weights = models.get_model_weights(spec.name)["DEFAULT"]
    return _headless(models.get_model(spec.name), weights), _preprocess_of(weights, spec)


def names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    return list(models.list_models(module=models))


def _headless(model: nn.Module, weights: Any) -> nn.Module:
    """Replace the last layer with one output per class by nothing, whatever the model calls it."""
    classes = len(weights.meta["categories"])
    heads = [
        name
        for name, layer in model.named_modules()
        if getattr(layer, "out_features", getattr(layer, "out_channels", None)) == classes
    ]
    model.set_submodule(heads[-1], nn.Identity())
    return model


def _preprocess_of(weights: Any, spec: PriorSpec) -> Preprocess:
    """Return the preprocessing of ``weights``; another size keeps the ratio of crop to resize."""
    own = weights.transforms()
    crop, resize = own.crop_size[0], own.resize_size[0]
    size = spec.size or crop
    return as_preprocess(
        size, round(size * resize / crop), own.interpolation.value, own.mean, own.std
    )
