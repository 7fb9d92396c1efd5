"""``timm:`` and ``torchvision:``, with weights in a local cache and without any."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from coopt_fl.core.errors import PriorError
from coopt_fl.priors import check_prior, load_prior
from tests.unit.priors.conftest import PutOnHub, assert_like_pillow

SQUEEZENET = "squeezenet1_1-b8a52dc0.pth"


@pytest.mark.parametrize("name", ["test_resnet", "test_vit.r160_in1k"])
def test_timm_weights_are_taken_from_the_hubs_cache(
    name: str, put_on_hub: PutOnHub, photos: Tensor
) -> None:
    theirs: Any = timm.create_model(name).eval()
    put_on_hub(f"timm/{name.partition('.')[0]}.r160_in1k", "model.safetensors", theirs)
    prior = load_prior(f"timm:{name}")
    with torch.no_grad():
        hidden = theirs.forward_features(prior.preprocess(photos, "cpu"))
        expected = theirs.forward_head(hidden, pre_logits=True)
    assert check_prior(f"timm:{name}") is None
    torch.testing.assert_close(prior.features(photos), expected, rtol=1e-3, atol=1e-4)


def test_timm_transformers_take_another_size_with_their_weights(put_on_hub: PutOnHub) -> None:
    theirs: Any = timm.create_model("test_vit")
    put_on_hub("timm/test_vit.r160_in1k", "model.safetensors", theirs)
    prior = load_prior("timm:test_vit?size=64")
    ours = prior.model.state_dict()
    assert torch.equal(ours["blocks.0.attn.qkv.weight"], theirs.blocks[0].attn.qkv.weight)
    assert ours["pos_embed"].shape != theirs.pos_embed.shape


def test_weights_on_the_hub_that_do_not_fit_are_refused(put_on_hub: PutOnHub) -> None:
    put_on_hub("timm/test_vit.r160_in1k", "model.safetensors", timm.create_model("test_resnet"))
    with pytest.raises(PriorError, match=r"prior 'timm:test_vit' cannot be loaded"):
        load_prior("timm:test_vit")


def store_squeezenet(tmp_path: Path) -> Any:
    model = torchvision.models.squeezenet1_1().eval()
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / SQUEEZENET)
    return model


@pytest.mark.usefixtures("no_network")
def test_torchvision_weights_are_taken_from_torchs_cache(tmp_path: Path, photos: Tensor) -> None:
    theirs = store_squeezenet(tmp_path)
    prior = load_prior("torchvision:squeezenet1_1/IMAGENET1K_V1?size=64")
    with torch.no_grad():
        hidden = theirs.features(prior.preprocess(photos, "cpu"))
    assert check_prior("torchvision:squeezenet1_1/DEFAULT") is None
    torch.testing.assert_close(prior.features(photos), hidden.relu().mean((2, 3)))


@pytest.mark.usefixtures("no_network")
def test_torchvision_preprocessing_is_that_of_the_weights(tmp_path: Path, photos: Tensor) -> None:
    store_squeezenet(tmp_path)
    prior = load_prior("torchvision:squeezenet1_1/IMAGENET1K_V1")
    transform = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    assert_like_pillow(prior, photos, transform)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ("timm:resnet18", "models--timm--resnet18.a1_in1k"),
        ("timm:vit_small_patch16_224", "models--timm--vit_small_patch16_224"),
        ("torchvision:resnet18/DEFAULT", "hub/checkpoints/resnet18-f37072fd.pth"),
        ("open_clip:RN50/openai", "models--timm--resnet50_clip.openai"),
    ],
)
def test_weights_that_cannot_be_had_say_where_to_put_them(spec: str, place: str) -> None:
    with pytest.raises(PriorError) as error:
        load_prior(spec)
    message = str(error.value)
    assert message.startswith(f"prior {spec!r}: its weights are not on this machine")
    assert place in message
    assert check_prior(spec) == message


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("timm:resnet-18", r"timm has no model 'resnet-18' \(nearest: resnet18"),
        ("timm:resnet18.mine", r"no such weights; for resnet18 it has .*resnet18\.a1_in1k"),
        ("timm:test_vit4", r"no such weights; for test_vit4 it has none"),
        ("torchvision:resnt18/DEFAULT", r"no classifier 'resnt18' \(nearest: resnet18"),
        ("torchvision:resnet50", r"torchvision:resnet50/IMAGENET1K_V2"),
        ("torchvision:resnet50/V3", r"torchvision:resnet50/IMAGENET1K_V2"),
        ("open_clip:ViT-B32/openai", r"no architecture 'ViT-B32' \(nearest: ViT-B-32"),
        ("open_clip:RN50/opanai", r"neither a file nor a tag of RN50; its tags are openai"),
        ("checkpoint:nowhere.pt", r"no file nowhere\.pt"),
    ],
)
def test_unknown_names_say_what_there_is(spec: str, says: str) -> None:
    with pytest.raises(PriorError, match=says) as error:
        load_prior(spec)
    assert check_prior(spec) == str(error.value)
