"""Student models by name: our convnet, and torchvision's and timm's models without classifier.

For images up to 64 pixels the library models get another stem, because a stem made for 224 pixels
would discard most of a small image.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from coopt_fl.core.errors import ConfigError
from coopt_fl.plugins import function
from coopt_fl.registry import PARTS, Part

if TYPE_CHECKING:
    from torchvision.models import VisionTransformer

STAGES = (1, 2, 4, 4)
"""Widths of the stages in units of W."""

SMALL_IMAGE = 64
"""Largest side in pixels of images for which a stem must keep the resolution."""

MIN_GRID, MAX_GRID = 4, 8
"""Fewest and most patches of a vision transformer along one side of a small image."""


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
        return cast(Tensor, self.stages(images).mean((2, 3)))


CONVNET = re.compile(r"convnet:([1-9]\d{0,3})")
UNUSABLE = ["googlenet", "inception_v3", "squeezenet*"]
"""torchvision models with more than one output in training, or without a linear classifier."""


class Student(nn.Module):
    """A model that is trained on an optimized dataset, without the head that fits the targets.

    Attributes:
        name: The value of ``student.model``.
        image_size: Side s of its images in pixels.
        width: Width of its features.
    """

    def __init__(self, name: str, image_size: int, backbone: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.image_size = image_size
        self.backbone = backbone
        with torch.no_grad():
            features = backbone.eval()(torch.zeros(1, 3, image_size, image_size))
        backbone.train()
        if not isinstance(features, Tensor) or features.ndim != 2:
            raise ConfigError(f"student.model {name!r} gives no feature vector; choose another")
        self.width = features.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, width) of normalised float images (B, 3, s, s)."""
        return cast(Tensor, self.backbone(images))


def build_student(name: str, image_size: int, seed: int) -> Student:
    """Return a randomly initialised student; the same one for the same arguments.

    Args:
        name: ``convnet:WIDTH``, a torchvision classification model, ``timm:NAME``,
            ``python:MODULE:FUNCTION``, or the name of a registered student.
        image_size: Side s of its images. Up to 64 pixels the stem is replaced by one that keeps
            the resolution (3x3, stride 1, no max-pool; smaller patches in transformers).
        seed: Seed of the initialisation; torch's global random state is restored.

    Raises:
        ConfigError: There is no such model, or it cannot take images of that size.
    """
    check_student(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            return Student(name, image_size, _part(name).object(name, image_size))
        except ConfigError:
            raise
        except Exception as error:  # libraries raise various errors for a size they do not support
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigError(
                f"student.model {name!r} cannot take images of {image_size}x{image_size} pixels "
                f"({reason}); set another student.image_size or student.model"
            ) from error


def check_student(name: str) -> None:
    """Raise ConfigError, with the nearest known names, unless ``name`` is a known student."""
    scheme, _, rest = name.partition(":")
    if scheme == "python":
        function(name)
    if CONVNET.fullmatch(name) or _part(name).name not in ("convnet", "timm", "torchvision"):
        return
    if scheme == "convnet":
        raise ConfigError(f"student.model {name!r} needs a width, as in 'convnet:64'")
    if scheme == "timm":
        import timm

        prefix, known = "timm:", [*timm.list_models(), *timm.list_pretrained()]
    else:
        from torchvision import models

        others = models.list_models(module=models, exclude=UNUSABLE)
        prefix, known = "", ["convnet:64", *others]
    if name.removeprefix(prefix) in known:
        return
    near = difflib.get_close_matches(rest or name, known, n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(prefix + found for found in near)}" if near else ""
    raise ConfigError(
        f"student.model {name!r} is unknown: give convnet:WIDTH, a torchvision model, or "
        f"timm:NAME{hint}"
    )


def check_features(name: str, size: int) -> None:
    """Raise ConfigError unless student ``name`` can be built for images of ``size`` pixels.

    A library's model is first tried on the meta device (shapes without data), which costs neither
    memory nor time, and built in full only if that fails. A model of the user's is built.
    """
    check_student(name)
    if CONVNET.fullmatch(name):
        return
    if _part(name).name not in ("timm", "torchvision"):
        build_student(name, size, seed=0)
        return
    try:
        with torch.device("meta"):
            build_student(name, size, seed=0)
    except ConfigError:
        build_student(name, size, seed=0)


def small_stem(model: nn.Module) -> None:
    """Make the first convolution 3x3 with stride 1 and drop the first max-pool, in place.

    This is the usual change for CIFAR (He et al. 2016, section 4.2). A model whose first
    convolution already keeps the resolution, such as VGG, is not changed.
    """
    path, first = _first(model, nn.Conv2d)
    if first is None or max(first.stride) == 1:
        return
    biased = first.bias is not None
    small = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=biased)
    model.set_submodule(path, small)
    path, pool = _first(model, nn.MaxPool2d)
    if pool is not None:
        model.set_submodule(path, nn.Identity())


def patch_side(size: int) -> int:
    """Return the patch size that cuts an image of ``size`` pixels into 4 to 8 patches per side.

    Raises:
        ConfigError: No such patch size divides ``size``.
    """
    for grid in range(MAX_GRID, MIN_GRID - 1, -1):
        if size % grid == 0:
            return size // grid
    raise ConfigError(
        f"a vision transformer cannot cut {size}x{size} pixels into 4 to 8 patches per side; "
        f"set student.image_size={max(MAX_GRID, size // MAX_GRID * MAX_GRID)}"
    )


def small_patches(vit: VisionTransformer, size: int) -> None:
    """Replace the patches of a torchvision vision transformer for ``size`` pixels, in place."""
    patch = patch_side(size)
    projection = nn.Conv2d(3, vit.hidden_dim, patch, patch)
    nn.init.trunc_normal_(projection.weight, std=math.sqrt(1 / (3 * patch**2)))
    if projection.bias is not None:
        nn.init.zeros_(projection.bias)
    vit.conv_proj, vit.image_size, vit.patch_size = projection, size, patch


def _first(model: nn.Module, kind: type[nn.Module]) -> tuple[str, Any]:
    """Return path and layer of the first layer of a kind, or ("", None) if there is none."""
    layers = model.named_modules()
    return next(((path, layer) for path, layer in layers if isinstance(layer, kind)), ("", None))


def _part(name: str) -> Part:
    """Return the registered builder of a student; names without a scheme are torchvision's."""
    stem = name.partition(":")[0]
    return PARTS.find("student", stem if PARTS.has("student", stem) else "torchvision")


def convnet(name: str, size: int) -> nn.Module:
    """Return the convnet of the width in ``name``."""
    return ConvNet(int(name.partition(":")[2]), size)


def python(name: str, size: int) -> nn.Module:
    """Return the model that the function of ``python:MODULE:FUNCTION`` builds for ``size``."""
    return cast(nn.Module, function(name)(name, size))


def torchvision(name: str, size: int) -> nn.Module:
    """Return a torchvision model without its classifier, with a stem that suits the size."""
    from torchvision import models

    build: Callable[..., Any] = partial(models.get_model, name, weights=None)
    small = size <= SMALL_IMAGE
    if not name.startswith("vit_"):
        model: nn.Module = build()
        if small:
            small_stem(model)
    elif small:  # built for as many patches of its own patch size, with which its name ends
        own = int(name.rpartition("_")[2])
        model = build(image_size=own * (size // patch_side(size)))
        small_patches(model, size)
    else:
        model = build(image_size=size)
    model.set_submodule(classifier_of(model), nn.Identity())
    return model


def classifier_of(model: nn.Module) -> str:
    """Return the path of a torchvision model's classifier: its last linear layer."""
    return str([path for path, layer in model.named_modules() if isinstance(layer, nn.Linear)][-1])


def timm(name: str, size: int) -> nn.Module:
    """Return a timm model without its classifier, with a stem that suits the size."""
    import timm

    name = name.removeprefix("timm:")
    options = timm_options(name, size)
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    if size <= SMALL_IMAGE and not options:
        small_stem(model)
    return model


def timm_options(name: str, size: int) -> dict[str, Any]:
    """Return the options for ``timm.create_model`` to build ``name`` for ``size`` pixels.

    Raises:
        ConfigError: It is a vision transformer, and no patch size fits; see :func:`patch_side`.
    """
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.fixed_input_size:
        return {}
    small = {"patch_size": patch_side(size)} if size <= SMALL_IMAGE else {}
    return {"img_size": size, **small}
