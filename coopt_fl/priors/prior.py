"""A prior: a frozen pretrained model that turns images into features."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coopt_fl.data.preprocess import Preprocess


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

        Images of mixed sizes come as a list of (3, H, W). ``precision`` other than float32 is
        autocast, and only on CUDA; elsewhere it is ignored.
        """
        reduced = precision != "float32" and self.device.type == "cuda"
        dtype = getattr(torch, precision)
        with torch.inference_mode(), torch.autocast(self.device.type, dtype, enabled=reduced):
            x = self.preprocess(images, self.device)
            features = self.model(x.contiguous(memory_format=torch.channels_last))
        # A copy made outside of inference mode is an ordinary tensor: it may be changed in place.
        return torch.clone(features).float()


def weights_sha256(model: nn.Module) -> str:
    """Return the sha256 (hex) over the state dict in order: names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
