"""Fold batch norms into the convolutions before them: the same features, in less time.

A frozen batch norm scales and shifts each channel, which the convolution before it can do as well.
Only reduced precision uses this, because it changes the last bits of the features.
"""

import copy
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

TOLERANCE = 1e-4
"""Largest change of features, relative to their norm; in float32 it is about 1e-6."""


@torch.no_grad()
def fold_norms(model: nn.Module, size: int) -> nn.Module:
    """Return a copy of ``model`` (eval mode) with its batch norms folded into convolutions.

    A forward pass shows which norm follows which convolution, because the order in which a model
    registers its layers says nothing. If nothing can be folded, the copy cannot be made, or its
    features differ from the model's, the model itself is returned.

    Args:
        model: maps (B, 3, size, size) to features (B, m), in float32.
        size: side of its input in pixels.
    """
    if all(_without_norm(module) is None for module in model.modules()):
        return model
    noise = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = torch.cat([noise, torch.full((1, 3, size, size), 2.5)])  # a bright image saturates
    pairs, features = _find_pairs(model, images)
    with suppress(Exception):  # a model may have parts that cannot be copied or replaced
        folded = copy.deepcopy(model)
        for convolution, norm in pairs.items():
            _fold(folded, convolution, norm)
        moved = torch.linalg.vector_norm(folded(images) - features, dim=1)
        if (moved <= TOLERANCE * torch.linalg.vector_norm(features, dim=1)).all():
            return folded
    return model


def _find_pairs(model: nn.Module, images: Tensor) -> tuple[dict[str, str], Tensor]:
    """Return the norm that follows each convolution, by name, and the features (B, m).

    Left out are layers that are used more than once in a forward pass, and pairs between which
    the output is changed in place.
    """
    made: list[tuple[Tensor, int, str]] = []  # outputs are kept alive, so that all are distinct
    pairs: dict[str, str] = {}
    uses: Counter[str] = Counter()

    def made_by(name: str) -> Callable[..., None]:
        def note(module: nn.Module, given: Any, output: Tensor) -> None:
            uses[name] += 1
            made.append((output, output._version, name))

        return note

    def taken_by(name: str) -> Callable[..., None]:
        def note(module: nn.Module, given: Any) -> None:
            uses[name] += 1
            for output, version, convolution in made:
                if given and output is given[0] and output._version == version:
                    pairs[convolution] = name

        return note

    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(made_by(name)))
        elif _without_norm(module) is not None:
            hooks.append(module.register_forward_pre_hook(taken_by(name)))
    try:
        features: Tensor = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {one: two for one, two in pairs.items() if uses[one] == uses[two] == 1}, features


def _fold(model: nn.Module, convolution: str, norm: str) -> None:
    conv, bn = model.get_submodule(convolution), model.get_submodule(norm)
    rest = _without_norm(bn)
    assert isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d) and rest is not None
    assert bn.running_mean is not None and bn.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )
    model.set_submodule(norm, rest)


def _without_norm(module: nn.Module) -> nn.Module | None:
    """Return a batch norm without its scale and shift; None if ``module`` is no batch norm."""
    if not isinstance(module, nn.BatchNorm2d) or module.running_mean is None:
        return None
    if type(module) is nn.BatchNorm2d:
        return nn.Identity()
    drop, act = (getattr(module, name, None) for name in ("drop", "act"))  # timm's BatchNormAct2d
    if isinstance(drop, nn.Module) and isinstance(act, nn.Module):
        return nn.Sequential(drop, act)
    return None
