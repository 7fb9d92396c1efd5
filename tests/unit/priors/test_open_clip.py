"""``open_clip:ARCH/TAG`` on a CLIP of a few thousand weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import pretrained
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor

from coopt_fl.core.errors import PriorError
from coopt_fl.priors import check_prior, load_prior
from tests.unit.priors.conftest import PutOnHub, assert_like_pillow

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory) -> None:
    config = tmp_path_factory.mktemp("configs") / "tiny-clip.json"
    config.write_text(json.dumps(TINY))
    open_clip.add_model_config(config)


def build(quick_gelu: bool = False) -> Any:
    torch.manual_seed(0)
    return open_clip.create_model("tiny-clip", force_quick_gelu=quick_gelu).eval()


def transform_of(model: Any) -> Callable[[Image.Image], Tensor]:
    config = PreprocessCfg(**model.visual.preprocess_cfg)
    transform: Callable[[Image.Image], Tensor] = image_transform_v2(config, False)
    return transform


def embedded(model: Any, photos: Tensor) -> Tensor:
    """Return open_clip's own features of ``photos``, preprocessed by Pillow."""
    transform = transform_of(model)
    images = [transform(Image.fromarray(photo.permute(1, 2, 0).numpy())) for photo in photos]
    with torch.no_grad():
        features: Tensor = model.encode_image(torch.stack(images))
    return features


def test_a_checkpoint_file_gives_open_clips_own_image_features(
    tmp_path: Path, photos: Tensor
) -> None:
    theirs = build()
    torch.save(theirs.state_dict(), tmp_path / "clip.pt")
    spec = f"open_clip:tiny-clip/{tmp_path / 'clip.pt'}"
    prior = load_prior(spec)
    assert check_prior(spec) is None
    assert prior.width == 24
    assert len(prior.model.state_dict()) == len(theirs.visual.state_dict())
    assert_like_pillow(prior, photos, transform_of(theirs))
    torch.testing.assert_close(prior.features(photos), embedded(theirs, photos), rtol=0, atol=0.02)


def test_another_size_keeps_the_weights(tmp_path: Path, photos: Tensor) -> None:
    torch.save(build().state_dict(), tmp_path / "clip.pt")
    prior = load_prior(f"open_clip:tiny-clip/{tmp_path / 'clip.pt'}?size=64")
    assert (prior.preprocess.size, prior.preprocess.resize) == (64, 64)
    assert prior.features(photos).shape == (2, 24)


def test_the_tag_decides_about_the_gelu(
    put_on_hub: PutOnHub, photos: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = pretrained._pcfg(hf_hub="tests/tiny/", quick_gelu=True)
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-clip", {"quick": tag})
    quick, exact = build(quick_gelu=True), build()
    assert not torch.allclose(embedded(quick, photos), embedded(exact, photos), atol=1e-3)
    put_on_hub("tests/tiny", "open_clip_model.safetensors", exact)
    prior = load_prior("open_clip:tiny-clip/quick")
    with torch.no_grad():
        expected = quick.encode_image(prior.preprocess(photos, "cpu"))
    torch.testing.assert_close(prior.features(photos), expected, rtol=1e-4, atol=1e-5)


def test_an_unknown_tag_never_means_random_weights() -> None:
    says = "neither a file nor a tag of tiny-clip; its tags are none"
    with pytest.raises(PriorError, match=says):
        load_prior("open_clip:tiny-clip/whatever")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.pt").write_text("not weights")
    with pytest.raises(PriorError, match=r"prior 'open_clip:.*cannot be loaded: "):
        load_prior(f"open_clip:tiny-clip/{tmp_path / 'clip.pt'}")


def test_a_resize_mode_that_we_do_not_have_is_refused() -> None:
    with pytest.raises(PriorError, match=r"resize mode 'squash'.*centre crop"):
        load_prior("open_clip:ViT-B-16-SigLIP/webli")


def test_a_missing_tag_is_asked_for() -> None:
    with pytest.raises(
        PriorError, match=r"a tag is missing: write open_clip:ViT-B-32/TAG; its tags are openai"
    ):
        load_prior("open_clip:ViT-B-32")
