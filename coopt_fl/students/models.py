"""Students by name: our convnet, and torchvision's and timm's models without their classifier."""

import difflib
import itertools
import re
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coopt_fl.core.errors import ConfigError
from coopt_fl.students.stems import patch_side, small_patches, small_stem

STAGES = (1, 2, 4, 4)
"""Widths of the stages in units of W."""

SMALL_IMAGE = 64
"""Up to this side in pixels a stem must keep the resolution of the image."""


class ConvNet(nn.Module):
    """Four stages of 3x3 convolution, batch norm and ReLU: W, 2W, 4W and 4W wide.

    The image is halved between stages, rounding up, so that any side works: 8 -> 4 -> 2 -> 1.
    One convolution per stage keeps it cheap enough for a CPU. Above 64 pixels the first one
    is 7x7 with stride 4. Features are the mean over the last stage's positions.
    """

    def __init__(self, width: int, image_size: int) -> None:
        super().__init__()
        widths = [3, *(width * factor for factor in STAGES)]
        self.stages = nn.Sequential()
        for stage, (channels, wider) in enumerate(itertools.pairwise(widths)):
            kernel, stride = (7, 4) if stage == 0 and image_size > SMALL_IMAGE else (3, 1)
            conv = nn.Conv2d(channels, wider, kernel, stride, padding=kernel // 2, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            pool = {"pool": nn.MaxPool2d(2, ceil_mode=True)} if stage else {}
            rest = {"conv": conv, "norm": nn.BatchNorm2d(wider), "relu": nn.ReLU(inplace=True)}
            self.stages.append(nn.Sequential(OrderedDict[str, nn.Module](pool | rest)))

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, 4W) of float images (B, 3, s, s)."""
        features: Tensor = self.stages(images).mean((2, 3))
        return features


CONVNET = re.compile(r"convnet:([1-9]\d{0,3})")
MANY_OUTPUTS = ("googlenet", "inception_v3")
"""torchvision models with more than one output in training."""


class Student(nn.Module):
    """A model that is trained on an optimized dataset, without the head that fits the targets.

    Attributes:
        name: As in ``student.model``.
        image_size: Side s of its images in pixels.
        width: Width of its features.
    """

    def __init__(self, name: str, image_size: int, backbone: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.image_size = image_size
        self.backbone = backbone
        self.width = _width(name, image_size, backbone)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, width) of normalised float images (B, 3, s, s)."""
        features: Tensor = self.backbone(images)
        return features


def build_student(name: str, image_size: int, seed: int) -> Student:
    """Return a randomly initialised student; the same one for the same arguments.

    Args:
        name: ``convnet:WIDTH``, a torchvision classification model, or ``timm:NAME``.
        image_size: Side s of its images. Up to 64 pixels the stem is replaced by one that keeps
            the resolution (3x3, stride 1, no max-pool; smaller patches in transformers).
        seed: Decides the initialisation; torch's own random state is left as it was.

    Raises:
        ConfigError: There is no such model, or it cannot take images of that size.
    """
    check_student(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            return Student(name, image_size, _backbone(name, image_size))
        except ConfigError:
            raise
        except Exception as error:  # what a library raises for a size it cannot take is its own
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigError(
                f"student.model {name!r} cannot take images of {image_size}x{image_size} pixels "
                f"({reason}); set another student.image_size or student.model"
            ) from error


def check_student(name: str) -> None:
    """Raise ConfigError with the nearest names unless ``name`` is one that can be built."""
    scheme, _, rest = name.partition(":")
    if CONVNET.fullmatch(name):
        return
    if scheme == "convnet":
        raise ConfigError(f"student.model {name!r} needs a width, as in 'convnet:64'")
    known = _timm_names() if scheme == "timm" else _other_names()
    if (rest if scheme == "timm" else name) in known:
        return
    near = difflib.get_close_matches(rest or name, known, n=3, cutoff=0.5)
    prefix = "timm:" if scheme == "timm" else ""
    hint = f"; nearest: {', '.join(prefix + found for found in near)}" if near else ""
    raise ConfigError(
        f"student.model {name!r} is unknown: give convnet:WIDTH, a torchvision model, or "
        f"timm:NAME{hint}"
    )


def _backbone(name: str, size: int) -> nn.Module:
    if found := CONVNET.fullmatch(name):
        return ConvNet(int(found[1]), size)
    if name.startswith("timm:"):
        return _timm(name.removeprefix("timm:"), size)
    return _torchvision(name, size)


def _torchvision(name: str, size: int) -> nn.Module:
    from torchvision import models

    build: Callable[..., Any] = partial(models.get_model, name, weights=None)
    small = size <= SMALL_IMAGE
    if not name.startswith("vit_"):
        model: nn.Module = build()
        if small:
            small_stem(model)
    elif small:  # built for as many patches of its own side, which its name ends with
        own = int(name.rpartition("_")[2])
        model = build(image_size=own * (size // patch_side(size)))
        small_patches(model, size)
    else:
        model = build(image_size=size)
    classifier = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)][-1]
    model.set_submodule(classifier, nn.Identity())
    return model


def _timm(name: str, size: int) -> nn.Module:
    import timm

    config = timm.get_pretrained_cfg(name)
    small = size <= SMALL_IMAGE
    sized: dict[str, Any] = (
        {"img_size": size} if config is not None and config.fixed_input_size else {}
    )
    if sized and small:
        sized["patch_size"] = patch_side(size)
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **sized)
    if small and not sized:
        small_stem(model)
    return model


@torch.no_grad()
def _width(name: str, size: int, backbone: nn.Module) -> int:
    """Return the width of the features by running one empty image through."""
    features = backbone.eval()(torch.zeros(1, 3, size, size))
    backbone.train()
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ConfigError(f"student.model {name!r} gives no feature vector; choose another")
    return features.shape[1]


def _other_names() -> list[str]:
    from torchvision import models

    names = [n for n in models.list_models(module=models) if n not in MANY_OUTPUTS]
    return ["convnet:64", *(n for n in names if not n.startswith("squeezenet"))]


def _timm_names() -> list[str]:
    import timm

    return [*timm.list_models(), *timm.list_pretrained()]
