"""Preprocessing and every kind of prior on a GPU; see :mod:`tests.unit.placement.gpu`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from coopt_fl.data.image import Preprocess
from coopt_fl.priors import Prior
from coopt_fl.targets import Alignment
from coopt_fl.targets.optimize import encode
from tests.unit.placement.gpu import GPU, Forgetful, Forgotten, first_tensor, moved, pretended
from tests.unit.placement.kinds import HALF, KINDS
from tests.unit.priors.conftest import PutOnHub

DIM = 5
PREPROCESS = Preprocess(16, 20, "bicubic", HALF, HALF)
GIVEN: dict[str, Callable[[], Tensor | list[Tensor]]] = {
    "one size": lambda: torch.empty(4, 3, 24, 30, dtype=torch.uint8),
    "several sizes": lambda: [torch.empty(3, s, 30, dtype=torch.uint8) for s in (18, 25, 30, 31)],
}


@pytest.mark.parametrize("given", GIVEN)
def test_images_are_preprocessed_there(given: str) -> None:
    with pretended():
        assert PREPROCESS(GIVEN[given](), GPU).device == GPU
        with Forgetful(), pytest.raises(Forgotten):
            PREPROCESS(GIVEN[given](), GPU)


@pytest.fixture(params=KINDS, ids=lambda make: make.__name__)
def prior(request: pytest.FixtureRequest, tmp_path: Path, put_on_hub: PutOnHub) -> Prior:
    made: Prior = request.param(tmp_path, put_on_hub)
    return made


def test_a_prior_of_any_kind_with_its_alignment(prior: Prior) -> None:
    """From images to targets on the CPU, in either precision, by the code that every run uses."""
    alignment = Alignment(np.ones((prior.width, DIM), np.float32), np.zeros(DIM, np.float32), "")
    left = first_tensor(prior.model)
    with pretended():
        there = replace(prior, model=moved(prior.model), device=GPU)
        for precision in ("float32", "bfloat16"):
            features = there.features(GIVEN["one size"](), precision)
            assert (features.device, features.dtype) == (GPU, torch.float32)
            assert features.shape == (4, prior.width)
        values = torch.empty(4, DIM, dtype=torch.float16, device=GPU)
        stream = [
            (torch.arange(4, device=GPU), images(), ()) for images in [GIVEN["several sizes"]]
        ]
        assert encode(there.features, stream, 4, values, alignment.on(GPU)).values.shape == (4, DIM)
        moved(prior.model, but=left)
        with pytest.raises(Forgotten):
            there.features(GIVEN["one size"]())
