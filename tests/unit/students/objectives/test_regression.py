import math

import pytest
import torch

from coopt_fl.students.objectives.objective import LOSSES


def slow_cosine(output, target):
    terms = []
    for o, t in zip(output.tolist(), target.tolist(), strict=True):
        dot = sum(a * b for a, b in zip(o, t, strict=True))
        terms.append(1 - dot / math.hypot(*o) / math.hypot(*t))
    return sum(terms) / len(terms)


def slow_mse(output, target):
    flat = zip(output.flatten().tolist(), target.flatten().tolist(), strict=True)
    return sum((a - b) ** 2 for a, b in flat) / output.numel()


@pytest.mark.parametrize(("name", "slow"), [("cosine", slow_cosine), ("mse", slow_mse)])
@pytest.mark.parametrize("shape", [(1, 3), (5, 1), (7, 16)])
def test_agrees_with_a_slow_reference(name, slow, shape):
    output, target = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    assert LOSSES[name](output, target).item() == pytest.approx(slow(output, target), abs=1e-5)


def test_cosine_does_not_see_lengths_but_mse_does():
    output, target = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    cosine, mse = LOSSES["cosine"], LOSSES["mse"]
    assert cosine(3 * output, target).item() == pytest.approx(cosine(output, target).item())
    assert mse(3 * output, target).item() != pytest.approx(mse(output, target).item())
