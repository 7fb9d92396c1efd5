"""Whether weights can be had: a look into the local caches, then one short try of the network.

The libraries retry an unreachable hub for about a minute, or wait for it without limit; asking
first turns that into one sentence within seconds.
"""

import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import torch
from huggingface_hub import constants

from coopt_fl.core.errors import PriorError

_TIMEOUT = 5.0
"""Seconds to wait for the first answer of a host."""


@dataclass(frozen=True)
class Weights:
    """Where weights come from, where they are kept, and whether they are there already."""

    url: str
    place: Path
    cached: bool


def in_repository(repository: str, files: tuple[str, ...]) -> Weights:
    """Weights on the Hugging Face hub: any one of ``files`` in ``repository`` is enough."""
    found = [huggingface_hub.try_to_load_from_cache(repository, file) for file in files]
    place = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    url = f"{constants.ENDPOINT}/{repository}"
    return Weights(url, place, any(isinstance(path, str) for path in found))


def at_url(url: str, folder: Path | None = None) -> Weights:
    """Weights at a plain address; ``folder`` defaults to torch's own cache."""
    folder = folder or Path(torch.hub.get_dir()) / "checkpoints"
    place = folder / url.rpartition("/")[2]
    return Weights(url, place, place.is_file())


def require(weights: Weights) -> None:
    """Raise PriorError, saying what to do, unless ``weights`` are cached or their host answers."""
    if weights.cached or answers(weights.url):
        return
    raise PriorError(
        f"its weights are not on this machine and {weights.url} cannot be reached; connect once "
        f"to download them, or copy {weights.place} from a machine that has them "
        "(timm:tf_efficientnet_lite0@bundled needs no download)"
    )


def answers(url: str) -> bool:
    """Ask a host for the header only; any answer counts, a refusal too. Proxies are honoured."""
    if huggingface_hub.is_offline_mode() and url.startswith(constants.ENDPOINT):
        return False
    request = urllib.request.Request(url, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_TIMEOUT).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException):
        return False
    return True
