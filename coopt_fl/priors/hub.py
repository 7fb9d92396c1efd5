"""Check that weights are cached or can be downloaded, with one short request at most.

The libraries retry an unreachable hub for about a minute, or wait for it without limit; this check
ends in one error message within seconds.
"""

import http.client
import urllib.error
import urllib.request
from pathlib import Path

import huggingface_hub
import torch
from huggingface_hub import constants

from coopt_fl.core.errors import PriorError

_TIMEOUT = 5.0
"""Timeout of a request, in seconds."""


def require_in_repository(repository: str, *files: str) -> None:
    """Require weights of the Hugging Face hub; any one of ``files`` in ``repository`` is enough.

    Raises:
        PriorError: none of them is cached, and the hub does not answer.
    """
    found = [huggingface_hub.try_to_load_from_cache(repository, file) for file in files]
    if not any(isinstance(path, str) for path in found):
        place = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
        _require_answer(f"{constants.ENDPOINT}/{repository}", place)


def require_at(url: str, folder: Path | None = None) -> None:
    """Require weights at a plain URL, cached in ``folder`` (default: torch's own cache).

    Raises:
        PriorError: they are not cached, and their host does not answer.
    """
    folder = folder or Path(torch.hub.get_dir()) / "checkpoints"
    place = folder / url.rpartition("/")[2]
    if not place.is_file():
        _require_answer(url, place)


def answers(url: str) -> bool:
    """Whether a host answers a HEAD request, even by an HTTP error. Proxies are honoured."""
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


def _require_answer(url: str, place: Path) -> None:
    if not answers(url):
        raise PriorError(
            f"its weights are not on this machine and {url} cannot be reached; connect once "
            f"to download them, or copy {place} from a machine that has them "
            "(timm:tf_efficientnet_lite0@bundled needs no download)"
        )
