"""``open_clip:ARCH/TAG``: the image tower of a CLIP model; TAG may be the path of a checkpoint."""

from pathlib import Path

import open_clip
from torch import Tensor, nn

from coopt_fl.core.errors import PriorError
from coopt_fl.core.files import expanded
from coopt_fl.data.image import Preprocess
from coopt_fl.priors import hub
from coopt_fl.priors.spec import PriorSpec, nearest


class ImageTower(nn.Module):
    """The image side of CLIP, (B, 3, s, s) -> (B, m): embeddings before normalisation."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled embeddings, without the tokens that some towers add."""
        output = self.visual(images)
        pooled: Tensor = output[0] if isinstance(output, tuple) else output
        return pooled


def check(spec: PriorSpec) -> None:
    """Require known weights that are cached or can be downloaded."""
    arch, _, tag = spec.name.partition("/")
    if arch not in open_clip.list_models():
        hint = nearest(arch, open_clip.list_models())
        raise PriorError(f"open_clip has no architecture {arch!r}{hint}")
    config = open_clip.get_pretrained_cfg(arch, tag)
    if not config and not Path(tag).is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(arch)) or "none"
        wrong = f"{tag!r} is neither a file nor a tag of {arch}"
        missing = f"a tag is missing: write open_clip:{arch}/TAG"
        raise PriorError(f"{wrong if tag else missing}; its tags are {tags}")
    if config:
        _require_crop(config["resize_mode"])
        repository, _, file = config["hf_hub"].rpartition("/")
        if repository:
            files = (
                (file,) if file else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
            )
            hub.require_in_repository(repository, *files)
        else:
            hub.require_at(config["url"], expanded("~/.cache/clip"))


def load(spec: PriorSpec) -> tuple[nn.Module, Preprocess]:
    """Build the model with its weights and keep its image tower.

    If weights were trained with another GELU, open_clip only warns; here the weights decide.
    """
    arch, _, tag = spec.name.partition("/")
    model = open_clip.create_model(
        arch,
        pretrained=tag,
        require_pretrained=True,
        force_quick_gelu=open_clip.get_pretrained_cfg(arch, tag).get("quick_gelu", False),
        force_image_size=spec.size,
    )
    own = model.visual.preprocess_cfg
    _require_crop(own["resize_mode"])
    size = own["size"] if isinstance(own["size"], int) else own["size"][0]
    mean, std = tuple(own["mean"]), tuple(own["std"])
    return ImageTower(model.visual), Preprocess(size, size, own["interpolation"], mean, std)


def license(spec: PriorSpec) -> str | None:
    """Return the licence that open_clip's configuration states; version 3.3 never states one."""
    arch, _, tag = spec.name.partition("/")
    stated: str | None = open_clip.get_pretrained_cfg(arch, tag).get("license")
    return stated


def _require_crop(resize_mode: str) -> None:
    if resize_mode != "shortest":
        raise PriorError(
            f"it wants images in resize mode {resize_mode!r}, which is not supported; "
            "choose a model with a centre crop"
        )
