import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from coopt_fl.priors import Prior

PutOnHub = Callable[[str, str, nn.Module], None]


@pytest.fixture(scope="session")
def photos() -> Tensor:
    """Two sample photographs, uint8 (2, 3, 427, 640): a Chinese palace and a flower."""
    return torch.stack([torch.from_numpy(i.copy()) for i in load_sample_images().images]).permute(
        0, 3, 1, 2
    )


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make all weight caches empty and downloads impossible; return the Hub's cache folder."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("coopt_fl.priors.hub.answers", lambda url: False)
    return cache


@pytest.fixture
def put_on_hub(no_network: Path) -> PutOnHub:
    """Store a model's weights in the Hub's local cache, in the layout of a download."""

    def put(repository: str, file: str, model: nn.Module) -> None:
        commit = hashlib.sha1(repository.encode()).hexdigest()
        folder = no_network / f"models--{repository.replace('/', '--')}"
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit)
        save_file(dict(model.state_dict()), snapshot / file)

    return put


def assert_like_pillow(
    prior: Prior, photos: Tensor, transform: Callable[[Image.Image], Tensor]
) -> None:
    """Compare with a library's own transform, in grey levels of 255.

    Pillow rounds and clips between its two passes, which a few dark or bright pixels show.
    """
    theirs = [transform(Image.fromarray(photo.permute(1, 2, 0).numpy())) for photo in photos]
    scale = 255 * torch.tensor(prior.preprocess.std).view(3, 1, 1)
    levels = (prior.preprocess(photos, "cpu") - torch.stack(theirs)).abs() * scale
    assert levels.mean() < 0.3
    assert (levels > 1.01).float().mean() < 0.005
    assert levels.max() < 5
