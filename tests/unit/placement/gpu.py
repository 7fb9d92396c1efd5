"""A GPU without any: torch's fake tensors have a shape, a type and a device, but no numbers.

Computing with tensors of two devices raises, as it would on a real GPU. What fake tensors cannot do
(backward, optimizers) is done on the device "meta", which lets some tensors of the CPU pass, so
that afterwards every tensor is looked at.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)
META = torch.device("meta")

Forgotten = (RuntimeError, AssertionError)
"""Errors for a tensor that stayed on the CPU; the latter if it is not even a fake tensor."""

FACTORIES = {torch.arange, torch.empty, torch.eye, torch.full, torch.logspace, torch.tensor,
             torch.zeros, torch.zeros_like}  # fmt: skip


@contextmanager
def pretended() -> Iterator[None]:
    """Pretend that there is a GPU; tensors copied from it to the CPU are zero."""

    def numpy(tensor: Tensor) -> Any:
        if not isinstance(tensor, FakeTensor):
            return real(tensor)
        assert tensor.device.type == "cpu", "a tensor on a GPU has no numpy()"
        return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))

    real = Tensor.numpy
    with (
        FakeTensorMode(),
        Guessed(),
        patch.object(Tensor, "numpy", numpy),
        patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        patch("torch.cuda.is_bf16_supported", lambda: True),
    ):
        yield


class Guessed(TorchFunctionMode):
    """Replaces the numbers that lightly's losses read from tensors.

    These are the number of entries that a mask selects (the diagonal, or all others), and a queue's
    pointer, here 0, which must be on the CPU, or every step would wait for the GPU.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.__name__ == "__int__":
            assert args[0].device == CPU, "this waits for the GPU"
            return 0
        if func is Tensor.__getitem__ and hasattr(args[1], "picked"):
            values, mask = args
            return torch.where(mask, values, values).flatten()[: mask.picked]
        made = func(*args, **kwargs)
        if func is torch.eye and kwargs.get("dtype") is torch.bool:
            made.picked = args[0]
        elif func.__name__ == "__invert__" and hasattr(args[0], "picked"):
            made.picked = made.numel() - args[0].picked
        return made


class Forgetful(TorchFunctionMode):
    """Creates new tensors on the CPU whatever device is given: a planted mistake."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in FACTORIES:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def moved(module: nn.Module, but: str | None = None) -> nn.Module:
    """Move parameters and buffers to the pretended GPU, as ``.to(GPU)`` would.

    Args:
        module: changed in place; its other tensors become fake tensors on the CPU.
        but: the name of a parameter or buffer that is left on the CPU, as a fake tensor.
    """
    for path, part in module.named_modules():
        for kept in (part._parameters, part._buffers):
            for name, value in kept.items():
                if value is not None:
                    stays = f"{path}.{name}".lstrip(".") == but
                    kept[name] = _like(value, CPU if stays else GPU)
        held = {name: value for name, value in vars(part).items() if isinstance(value, Tensor)}
        vars(part).update({name: _like(value, CPU) for name, value in held.items()})
    return module


def _like(value: Tensor, device: torch.device) -> Tensor:
    new = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
    return nn.Parameter(new, value.requires_grad) if isinstance(value, nn.Parameter) else new


def first_tensor(module: nn.Module) -> str:
    """Return the name of a parameter or buffer that every forward pass uses."""
    return next(name for name, _ in [*module.named_parameters(), *module.named_buffers()])
