"""Folded batch norms: features stay equal, norms disappear, and others are left unchanged."""

import threading

import pytest
import torch
from timm import create_model
from torch import Tensor, nn
from torchvision.models import resnet18

from coopt_fl.core.runtime import has_bfloat16
from coopt_fl.priors import load_prior
from coopt_fl.priors.folding import fold_norms

SIZE = 32


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@torch.no_grad()
def trained(model: nn.Module) -> nn.Module:
    """Give batch norms random statistics, scales and shifts, as after training."""
    random = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=random)
            module.running_var.uniform_(0.5, 2, generator=random)
            module.weight.uniform_(0.5, 1.5, generator=random)
            module.bias.normal_(0, 0.1, generator=random)
    return model.eval().requires_grad_(False)


def images() -> Tensor:
    return torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_the_features_stay_and_the_norms_go(name: str) -> None:
    """One model has separate norm layers, the other's norms include the activation."""
    torch.manual_seed(0)
    model = trained(
        resnet18(weights=None) if name == "resnet18" else create_model(name, num_classes=0)
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_norms(model, SIZE)
    assert norms(model) > 10
    assert norms(folded) == 0
    exact, found = model.double()(images().double()), folded(images())
    assert torch.linalg.vector_norm(found - exact) < 1e-5 * torch.linalg.vector_norm(exact)
    model.float()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


class Misleading(nn.Module):
    """Registers a norm after a convolution that it does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.last(self.first(x))).flatten(1)


def test_what_follows_is_seen_and_not_guessed_from_the_order() -> None:
    model = trained(Misleading())
    folded = fold_norms(model, SIZE)
    assert norms(folded) == 0
    assert torch.equal(folded.first.weight, model.first.weight)  # type: ignore[union-attr,arg-type]
    torch.testing.assert_close(folded(images()), model(images()))


class Odd(nn.Module):
    """A convolution and a norm with a hidden operation between them."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.how = how
        if how == "weight norm":
            self.conv = nn.utils.parametrizations.weight_norm(self.conv)
        if how == "lock":
            self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv(x)
        if self.how == "by keyword":
            return self.norm(input=inner).flatten(1)
        if self.how == "used twice":
            return (self.norm(inner) + self.conv(inner)).flatten(1)
        if self.how == "used beside":
            return (self.norm(inner) + inner).flatten(1)
        if self.how == "clamped in place":  # at what noise does not reach
            nn.functional.hardtanh_(inner, -30, 30)
        if self.how == "reads the norm":
            inner = inner * (1 + self.norm.eps)
        return self.norm(inner).flatten(1)


@pytest.mark.parametrize(
    "how",
    ["by keyword", "used twice", "used beside", "clamped in place", "reads the norm", "weight norm",
     "lock"],
)  # fmt: skip
def test_what_cannot_be_folded_is_left_alone(how: str) -> None:
    model = trained(Odd(how))
    before = model(images())
    found = fold_norms(model, SIZE)
    assert norms(found) == 1
    assert torch.equal(found(images()), before)


def test_a_model_without_norms_is_not_even_run() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval()
    model.register_forward_pre_hook(lambda *_: pytest.fail("it was run"))
    assert fold_norms(model, SIZE) is model


@pytest.mark.skipif(not has_bfloat16(), reason="this CPU does not multiply bfloat16")
def test_priors_are_folded_in_reduced_precision_alone() -> None:
    name = "random:resnet18?size=32"
    exact, reduced = load_prior(name), load_prior(name, precision="bfloat16")
    assert norms(exact.model) == 20
    assert norms(reduced.model) == 0
    assert exact.sha256 == reduced.sha256, "which is of the weights as they were published"
    batch = torch.randint(0, 256, (8, 3, SIZE, SIZE), dtype=torch.uint8)
    one, two = exact.features(batch), reduced.features(batch, "bfloat16")
    assert torch.linalg.vector_norm(one - two) < 0.05 * torch.linalg.vector_norm(one)
