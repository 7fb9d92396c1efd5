"""Batch norms folded into the convolutions before them: the same features, in less time.

A frozen batch norm multiplies and shifts each channel, which the convolution before it can do by
itself. Reduced precision alone does so, as it changes the last bits of the features.
"""

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

TOLERANCE = 1e-4
"""How far features may move, relative to their norm; float32 moves them by some 1e-6."""


@torch.inference_mode()
def fold_norms(model: nn.Module, size: int) -> nn.Module:
    """Return a copy of ``model`` (eval mode) whose convolutions do the work of their batch norms.

    Which norm follows which convolution is seen in a forward pass, for the order in which a model
    registers its layers says nothing. Where the copy's features are not those of the model, or
    nothing can be folded, the model itself is returned.

    Args:
        model: maps (B, 3, size, size) to features (B, m), in float32.
        size: side of its input in pixels.
    """
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    pairs, features = _followed(model, images)
    if not pairs:
        return model
    folded = copy.deepcopy(model)
    for convolution, norm in pairs.items():
        _fold(folded, convolution, norm)
    moved = torch.linalg.vector_norm(folded(images) - features)
    return folded if moved <= TOLERANCE * torch.linalg.vector_norm(features) else model


def _followed(model: nn.Module, images: Tensor) -> tuple[dict[str, str], Tensor]:
    """Return which norm takes the output of which convolution, by name, and the features.

    Without those that are used more than once in a forward pass.
    """
    made: list[tuple[Tensor, str]] = []  # which keeps the outputs, so that no other takes their id
    pairs: dict[str, str] = {}
    uses: Counter[str] = Counter()

    def after(name: str) -> Any:
        def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            uses[name] += 1
            if isinstance(module, nn.Conv2d):
                made.append((output, name))
                return
            for known, convolution in made:
                if known is given[0]:
                    pairs[convolution] = name

        return note

    hooks = [
        module.register_forward_hook(after(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) or _rest(module) is not None
    ]
    try:
        features: Tensor = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    once = {one: two for one, two in pairs.items() if uses[one] == 1 and uses[two] == 1}
    return once, features


def _fold(model: nn.Module, convolution: str, norm: str) -> None:
    conv, bn = model.get_submodule(convolution), model.get_submodule(norm)
    rest = _rest(bn)
    assert isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d) and rest is not None
    assert bn.running_mean is not None and bn.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )
    model.set_submodule(norm, rest)


def _rest(module: nn.Module) -> nn.Module | None:
    """Return what is left of a batch norm without its scale and shift; None of anything else."""
    if not isinstance(module, nn.BatchNorm2d) or module.running_mean is None:
        return None
    if type(module) is nn.BatchNorm2d:
        return nn.Identity()
    drop, act = (getattr(module, name, None) for name in ("drop", "act"))  # timm's BatchNormAct2d
    if isinstance(drop, nn.Module) and isinstance(act, nn.Module):
        return nn.Sequential(drop, act)
    return None
