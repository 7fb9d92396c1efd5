"""A prior: a frozen pretrained model that turns images into features, loaded by its spec."""

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coopt_fl.config.combinations import NAME, NAMES
from coopt_fl.core.errors import ConfigError, CooptError, PriorError
from coopt_fl.core.runtime import arithmetic, channels_last, tensor_cores
from coopt_fl.data.image import Preprocess
from coopt_fl.priors.folding import fold_norms
from coopt_fl.priors.spec import PriorSpec, parse_prior
from coopt_fl.registry import PARTS, Part


@dataclass(frozen=True)
class Prior:
    """A loaded prior.

    Attributes:
        id: The spec as given, e.g. "timm:tf_efficientnet_lite0@bundled?size=96".
        width: Width m of its features.
        sha256: Digest of the weights, see :func:`weights_sha256`.
        preprocess: Its own resolution, interpolation and normalisation.
        model: Eval mode, channels_last, on ``device``; (B, 3, s, s) -> (B, m).
        device: Where it computes.
        license: Licence of its weights as its library states it, or "".
    """

    id: str
    width: int
    sha256: str
    preprocess: Preprocess
    model: nn.Module
    device: torch.device
    license: str = ""

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        *,
        name: str,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        resize: int | None = None,
        interpolation: str = "bilinear",
    ) -> "Prior":
        """Return a prior made of a copy of your ``module``.

        It is identified by a sha256 over its printed form, preprocessing and state dict. That does
        not cover the code of ``forward``: if you change this, give the prior another name.

        Args:
            module: maps (B, 3, size, size), normalised, to features (B, m).
            name: letters, digits, "-", "_" and ".".
            size: side of its input in pixels.
            mean: per RGB channel, subtracted from values in [0, 1].
            std: per RGB channel, divides the result.
            resize: length that the shorter edge gets before the centre crop; None: ``size``.
            interpolation: "bilinear" or "bicubic".

        Raises:
            ConfigError: the name or preprocessing is not allowed, or ``module`` cannot be copied.
            PriorError: it cannot take such images, or does not return features (B, m).
        """
        if not NAME.fullmatch(name):
            raise ConfigError(f"the name {name!r} of a prior is not allowed; allowed: {NAMES}")
        try:
            model = copy.deepcopy(module).cpu().eval().requires_grad_(False)
        except Exception as error:
            raise ConfigError(f"the module of {name} cannot be copied: {error}") from error
        preprocess = Preprocess(size, resize or size, interpolation, tuple(mean), tuple(std))
        with _named(name):
            width = _measure_width(model, size)
        kind = type(module)
        weights = weights_sha256(model)
        text = f"{kind.__module__}.{kind.__qualname__} {module} {preprocess} {weights}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        id = f"module:{name}@{digest}"
        return cls(id, width, weights, preprocess, model, torch.device("cpu"))

    def features(self, images: Tensor | list[Tensor], precision: str = "float32") -> Tensor:
        """Return float32 features (B, m) on ``device`` of uint8 images (B, 3, H, W).

        Images of different sizes are a list of (3, H, W). With another precision than float32 the
        model runs under autocast.

        Raises:
            ConfigError: see :func:`coopt_fl.core.runtime.arithmetic`.
        """
        dtype = arithmetic(precision, self.device)
        reduced = dtype != torch.float32
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype, enabled=reduced),
            tensor_cores(self.device),
        ):
            x = self.preprocess(images, self.device)
            features = self.model(x.contiguous(memory_format=torch.channels_last))
        # A copy made outside of inference mode is an ordinary tensor: it may be changed in place.
        return torch.clone(features).float()


def load_prior(spec: str, device: torch.device | str = "cpu", precision: str = "float32") -> Prior:
    """Load the prior named by ``spec`` onto ``device``; torch's random state stays as it was.

    Args:
        spec: SCHEME:NAME.
        device: where it will compute.
        precision: its arithmetic; with any but float32, batch norms are folded.

    Raises:
        ConfigError: see :func:`coopt_fl.core.runtime.arithmetic`.
        PriorError: the name is unknown, or the weights are neither cached nor can be downloaded;
            the message says what to do. Weights are never random unless the spec says so.
    """
    parsed = parse_prior(spec)
    reduced = arithmetic(precision, torch.device(device)) != torch.float32
    with _named(spec), torch.random.fork_rng(devices=[]):
        part = _scheme(parsed)
        _check(part, parsed)
        model, preprocess = part.object(parsed)
        model.eval().requires_grad_(False)
        width = _measure_width(model, preprocess.size)
        sha256 = weights_sha256(model)
        if reduced:
            model = fold_norms(model, preprocess.size)
        channels_last(model.to(device))
        license = _license(part, parsed)
    return Prior(spec, width, sha256, preprocess, model, torch.device(device), license)


def license_of(spec: str) -> str:
    """Return the licence of a prior's weights as its library states it, or "".

    Raises:
        PriorError: see :func:`load_prior`; no weights are loaded.
    """
    parsed = parse_prior(spec)
    with _named(spec):
        return _license(_scheme(parsed), parsed)


def check_prior(spec: str) -> str | None:
    """Return None if the prior can be used here, else one sentence why not and how to get it.

    Loads no weights; uses the network only if weights are not in a local cache.
    """
    try:
        parsed = parse_prior(spec)
        with _named(spec):
            _check(_scheme(parsed), parsed)
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


def _scheme(spec: PriorSpec) -> Part:
    bundled = spec.scheme == "timm" and spec.name.endswith("@bundled")
    return PARTS.find("prior", "timm@bundled" if bundled else spec.scheme)


def _license(part: Part, spec: PriorSpec) -> str:
    stated: Callable[[PriorSpec], str | None] | None = part.fact("license")
    return (stated(spec) or "") if stated else ""


def _check(part: Part, spec: PriorSpec) -> None:
    """Raise PriorError unless the part would load the prior here; loads no weights."""
    check: Callable[[PriorSpec], None] | None = part.fact("check")
    if check is not None:
        check(spec)


@contextmanager
def _named(spec: str) -> Iterator[None]:
    """Turn every error of the block into a PriorError that names the prior."""
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
    """Return the width m, by running a blank image: no attribute has it in all libraries."""
    try:
        shape = tuple(model(torch.zeros(1, 3, size, size)).shape)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise PriorError(
            f"it cannot take images of {size} px ({error}); give it another size"
        ) from error
    if len(shape) != 2:
        raise PriorError(f"its features have the shape {shape}, not (1, width); choose another")
    return int(shape[1])
