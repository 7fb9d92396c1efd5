"""``torchvision:NAME/WEIGHTS``: torchvision's classifiers with a named set of weights."""

from torch import nn
from torchvision import models

from coopt_fl.core.errors import PriorError
from coopt_fl.data.image import Preprocess
from coopt_fl.priors import hub
from coopt_fl.priors.spec import PriorSpec, nearest


def check(spec: PriorSpec) -> None:
    """Require known weights that are cached or can be downloaded."""
    name, _, tag = spec.name.partition("/")
    if name not in names():
        raise PriorError(f"torchvision has no classifier {name!r}{nearest(name, names())}")
    known = models.get_model_weights(name).__members__
    if tag not in known:
        forms = ", ".join(f"torchvision:{name}/{each}" for each in known)
        raise PriorError(f"name one of its weights: {forms}")
    hub.require_at(known[tag].url)


def load(spec: PriorSpec, pretrained: bool = True) -> tuple[nn.Module, Preprocess]:
    """Build the model without its classifier, and the preprocessing of its weights.

    With another size, the crop keeps its share of the image. The classifier is the last layer with
    one output per class, whatever the model calls it.
    """
    name, _, tag = spec.name.partition("/")
    weights = models.get_model_weights(name)[tag or "DEFAULT"]
    model = models.get_model(name, weights=weights if pretrained else None, progress=False)
    classes = len(weights.meta["categories"])
    heads = [
        path
        for path, layer in model.named_modules()
        if getattr(layer, "out_features", getattr(layer, "out_channels", None)) == classes
    ]
    model.set_submodule(heads[-1], nn.Identity())
    own = weights.transforms()
    size = spec.size or own.crop_size[0]
    resize = round(size * own.resize_size[0] / own.crop_size[0])
    interpolation = own.interpolation.value
    return model, Preprocess(size, resize, interpolation, tuple(own.mean), tuple(own.std))


def license(spec: PriorSpec) -> str | None:
    """Return the licence that the metadata of the weights state, which few do."""
    name, _, tag = spec.name.partition("/")
    stated: str | None = models.get_model_weights(name)[tag].meta.get("license")
    return stated


def names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    return list(models.list_models(module=models))
