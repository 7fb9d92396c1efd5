"""``timm:NAME``: timm's pretrained weights, from the local cache or the Hugging Face hub."""

import math
from dataclasses import asdict
from typing import Any, cast

import timm
from timm.data.config import resolve_data_config
from torch import nn

from coopt_fl.core.errors import PriorError
from coopt_fl.data.image import Preprocess, as_preprocess
from coopt_fl.priors import hub
from coopt_fl.priors.spec import PriorSpec, nearest


def check(spec: PriorSpec) -> None:
    """Require known weights that are here or can be fetched."""
    if not timm.is_model(spec.name):
        known = [*timm.list_models(), *timm.list_pretrained()]
        raise PriorError(f"timm has no model {spec.name!r}{nearest(spec.name, known)}")
    name, _, _ = spec.name.partition(".")
    tagged = timm.list_pretrained(f"{name}.*")
    if spec.name not in (name, *tagged) or not timm.is_model_pretrained(spec.name):
        raise PriorError(f"timm has no such weights; for {name} it has {tagged or 'none'}")
    preprocess_of(spec)
    hub.require(_weights(timm.get_pretrained_cfg(spec.name)))


def load(spec: PriorSpec) -> tuple[nn.Module, Preprocess]:
    """Build the model with its pretrained weights and without its classifier."""
    return create(spec, pretrained=True), preprocess_of(spec)


def create(spec: PriorSpec, pretrained: bool) -> nn.Module:
    """Build the model of ``spec`` with pooled features as output, fixed sizes made to fit.

    The classifier goes last: asked to leave it out, timm takes weights that miss any layer.
    """
    config = timm.get_pretrained_cfg(spec.name)
    fits = spec.size is None or not (config and config.fixed_input_size)
    sizes: dict[str, Any] = {} if fits else {"img_size": spec.size}
    model: Any = timm.create_model(spec.name, pretrained=pretrained, **sizes)
    model.reset_classifier(0)
    return cast(nn.Module, model)


def preprocess_of(spec: PriorSpec) -> Preprocess:
    """Return timm's own preprocessing; another size keeps the model's crop ratio."""
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
    return as_preprocess(size, resize, own["interpolation"], own["mean"], own["std"])


def _weights(config: Any) -> hub.Weights:
    if not config.hf_hub_id:
        return hub.at_url(config.url)
    named = config.hf_hub_filename
    files = (named,) if named else ("model.safetensors", "pytorch_model.bin")
    return hub.in_repository(config.hf_hub_id, files)
