"""``timm:NAME``: timm's pretrained weights, from the local cache or the Hugging Face hub."""

import math
from dataclasses import asdict
from typing import Any, cast

import timm
from timm.data.config import resolve_data_config
from torch import nn

from coopt_fl.core.errors import PriorError
from coopt_fl.data.image import Preprocess
from coopt_fl.priors import hub
from coopt_fl.priors.spec import PriorSpec, nearest


def check(spec: PriorSpec) -> None:
    """Require known weights that are cached or can be downloaded."""
    if not timm.is_model(spec.name):
        known = [*timm.list_models(), *timm.list_pretrained()]
        raise PriorError(f"timm has no model {spec.name!r}{nearest(spec.name, known)}")
    name, _, _ = spec.name.partition(".")
    tagged = timm.list_pretrained(f"{name}.*")
    if spec.name not in (name, *tagged) or not timm.is_model_pretrained(spec.name):
        raise PriorError(f"timm has no such weights; for {name} it has {tagged or 'none'}")
    preprocess_of(spec)
    config: Any = timm.get_pretrained_cfg(spec.name)
    if config.hf_hub_id:
        named = config.hf_hub_filename
        files = (named,) if named else ("model.safetensors", "pytorch_model.bin")
        hub.require_in_repository(config.hf_hub_id, *files)
    else:
        hub.require_at(config.url)


def load(spec: PriorSpec, pretrained: bool = True) -> tuple[nn.Module, Preprocess]:
    """Build the model without its classifier, if needed with the input size of ``spec``.

    The classifier is removed last, because if timm itself omits it, it accepts weights that lack
    any layer.
    """
    config = timm.get_pretrained_cfg(spec.name)
    resized = spec.size is not None and config and config.fixed_input_size
    sizes: dict[str, Any] = {"img_size": spec.size} if resized else {}
    model: Any = timm.create_model(spec.name, pretrained=pretrained, **sizes)
    model.reset_classifier(0)
    return cast(nn.Module, model), preprocess_of(spec)


def license(spec: PriorSpec) -> str | None:
    """Return the licence that timm's configuration of the weights states."""
    config = timm.get_pretrained_cfg(spec.name)
    return config.license if config else None


def preprocess_of(spec: PriorSpec) -> Preprocess:
    """Return timm's own preprocessing; with another size, the crop keeps its share of the image.

    Raises:
        PriorError: it does not crop the centre.
    """
    config = timm.get_pretrained_cfg(spec.name)
    known = asdict(config) if config else {}
    own = resolve_data_config({}, pretrained_cfg=known)  # type: ignore[no-untyped-call]
    if own["crop_mode"] != "center":
        raise PriorError(
            f"it wants images in crop mode {own['crop_mode']!r}, which is not supported; "
            "choose a model with a centre crop"
        )
    size = spec.size or own["input_size"][-1]
    resize = math.floor(size / own["crop_pct"])
    return Preprocess(size, resize, own["interpolation"], tuple(own["mean"]), tuple(own["std"]))
