"""Licences that libraries state for their weights, read without loading weights."""

from typing import Any

import open_clip
import pytest
import timm
from torchvision import models

from coopt_fl.priors.prior import load_prior
from coopt_fl.priors.spec import NOTHING, parse_prior
from coopt_fl.registry import PARTS


def license_of(spec: str) -> Any:
    parsed = parse_prior(spec)
    return PARTS.find("prior", parsed.scheme).fact("license")(parsed)


def test_timm_states_it_in_the_configuration_of_the_weights() -> None:
    found = {license_of(f"timm:{name}") for name in timm.list_pretrained("convnext*_tiny.*")}
    assert found >= {"apache-2.0", "cc-by-nc-4.0"}
    assert license_of("timm:vit_small_patch16_dinov3.lvd1689m") == "dinov3-license"


def test_torchvision_states_it_in_the_metadata_of_some() -> None:
    assert license_of("torchvision:resnet18/IMAGENET1K_V1") is None
    swag = models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1.meta["license"]
    assert license_of("torchvision:vit_b_16/IMAGENET1K_SWAG_E2E_V1") == swag


def test_open_clip_would_state_it_in_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    assert license_of("open_clip:ViT-B-32/openai") is None
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"license": "mit"})
    assert license_of("open_clip:ViT-B-32/openai") == "mit"


@pytest.mark.parametrize("spec", ["trivial:8", "random:resnet18?size=32"])
def test_what_was_not_trained_has_nothing_to_license(spec: str) -> None:
    assert load_prior(spec).license == NOTHING
