"""A prior: a frozen pretrained model that turns images into features, loaded by its spec."""

import hashlib
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from coopt_fl.core.errors import CooptError, PriorError
from coopt_fl.data.image import Preprocess
from coopt_fl.priors.spec import PriorSpec, parse_prior

_MODULES = {
    "timm": "coopt_fl.priors.schemes.timm",
    "timm@bundled": "coopt_fl.priors.schemes.bundled",
    "torchvision": "coopt_fl.priors.schemes.torchvision",
    "open_clip": "coopt_fl.priors.schemes.open_clip",
    "checkpoint": "coopt_fl.students.checkpoint",
    "random": "coopt_fl.priors.schemes.random",
    "trivial": "coopt_fl.priors.schemes.trivial",
}
"""The module of each scheme, a :class:`Scheme`; it is imported only when a spec asks for it."""


@dataclass(frozen=True)
class Prior:
    """A loaded prior.

    Attributes:
        id: The spec as given, e.g. "timm:tf_efficientnet_lite0@bundled?size=96".
        width: Width m of its features.
        sha256: Of the weights, see :func:`weights_sha256`.
        preprocess: Its own resolution, interpolation and normalisation.
        model: Eval mode, channels_last, on ``device``; (B, 3, s, s) -> (B, m).
        device: Where it computes.
    """

    id: str
    width: int
    sha256: str
    preprocess: Preprocess
    model: nn.Module
    device: torch.device

    def features(self, images: Tensor | list[Tensor], precision: str = "float32") -> Tensor:
        """Return float32 features (B, m) on ``device`` of uint8 images (B, 3, H, W).

        Images of different sizes come as a list of (3, H, W). With a ``precision`` other than
        float32 the model runs under autocast on CUDA; elsewhere ``precision`` is ignored.
        """
        reduced = precision != "float32" and self.device.type == "cuda"
        dtype = getattr(torch, precision)
        with torch.inference_mode(), torch.autocast(self.device.type, dtype, enabled=reduced):
            x = self.preprocess(images, self.device)
            features = self.model(x.contiguous(memory_format=torch.channels_last))
        # A copy made outside of inference mode is an ordinary tensor: it may be changed in place.
        return torch.clone(features).float()


class Scheme(Protocol):
    """What the module of a scheme offers."""

    def check(self, spec: PriorSpec) -> None:
        """Raise PriorError unless :meth:`load` would work here; loads no weights."""

    def load(self, spec: PriorSpec) -> tuple[nn.Module, Preprocess]:
        """Return the model, (B, 3, s, s) -> (B, m), with its weights, and its preprocessing."""


def load_prior(spec: str, device: torch.device | str = "cpu") -> Prior:
    """Load the prior named by ``spec`` onto ``device``; torch's random state stays as it was.

    Raises:
        PriorError: The name is unknown, or the weights are not here and cannot be fetched;
            the message says what to do. Weights are never random unless the spec says so.
    """
    parsed = parse_prior(spec)
    with _named(spec), torch.random.fork_rng(devices=[]):
        scheme = _scheme(parsed)
        scheme.check(parsed)
        model, preprocess = scheme.load(parsed)
        model.eval().requires_grad_(False)
        width = _measure_width(model, preprocess.size)
        sha256 = weights_sha256(model)
        model.to(device).to(memory_format=torch.channels_last)
    return Prior(spec, width, sha256, preprocess, model, torch.device(device))


def check_prior(spec: str) -> str | None:
    """Return None if the prior can be used here, else one sentence why not and how to get it.

    Loads no weights; asks the network only where weights are not in a local cache.
    """
    try:
        parsed = parse_prior(spec)
        with _named(spec):
            _scheme(parsed).check(parsed)
    except PriorError as error:
        return str(error)
    return None


def weights_sha256(model: nn.Module) -> str:
    """Return the sha256 (hex) over the state dict in order: names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _scheme(spec: PriorSpec) -> Scheme:
    bundled = spec.scheme == "timm" and spec.name.endswith("@bundled")
    module = _MODULES["timm@bundled" if bundled else spec.scheme]
    return cast(Scheme, importlib.import_module(module))


@contextmanager
def _named(spec: str) -> Iterator[None]:
    """Name the prior in every error, whatever kind of error its library raises."""
    try:
        yield
    except CooptError as error:
        raise PriorError(f"prior {spec!r}: {error}") from error
    except torch.OutOfMemoryError as error:
        raise PriorError(
            f"prior {spec!r} does not fit into the GPU's memory; lower simulation.actors or "
            "choose a smaller prior"
        ) from error
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise PriorError(f"prior {spec!r} cannot be loaded: {reason}") from error


@torch.inference_mode()
def _measure_width(model: nn.Module, size: int) -> int:
    """Run a blank image: no attribute tells the width for all models of all libraries."""
    try:
        shape = tuple(model(torch.zeros(1, 3, size, size)).shape)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise PriorError(
            f"it cannot take images of {size} px ({error}); drop ?size= for its own resolution"
        ) from error
    if len(shape) != 2:
        raise PriorError(f"its features have the shape {shape}, not (1, width); choose another")
    return int(shape[1])
