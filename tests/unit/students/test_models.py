import pytest
import torch

from coopt_fl.errors import ConfigError
from coopt_fl.students import build_student, check_student

SMALL = ["convnet:8", "resnet18", "mobilenet_v2", "timm:resnet10t", "timm:vit_tiny_patch16_224"]
LARGE = ["convnet:8", "resnet18", "efficientnet_b0", "timm:vit_tiny_patch16_224"]


def spatial_sizes(model, size: int) -> list[int]:
    """Sides of what every convolution gives for an image of ``size``."""
    sides: list[int] = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _m, _x, out: sides.append(out.shape[-1]))
    model(torch.zeros(2, 3, size, size))
    return sides


@pytest.mark.parametrize(("name", "size"), [(n, 32) for n in SMALL] + [(n, 96) for n in LARGE])
def test_features_have_the_stated_width_and_gradients_reach_every_parameter(name, size):
    student = build_student(name, size, seed=0)
    with torch.no_grad():
        for parameter in student.parameters():
            if not parameter.any():  # timm starts residual branches at zero, which blocks them
                parameter.add_(0.5)
    features = student(torch.randn(4, 3, size, size))
    assert features.shape == (4, student.width)
    features.square().sum().backward()
    silent = [n for n, p in student.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("size", [8, 9, 28, 64, 65, 100])
def test_the_convnet_takes_any_size(size):
    student = build_student("convnet:4", size, seed=0)
    assert student(torch.randn(2, 3, size, size)).shape == (2, 16)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "timm:resnet18"])
def test_a_small_image_keeps_its_resolution_in_the_stem_and_a_large_one_does_not(name):
    assert spatial_sizes(build_student(name, 32, seed=0), 32)[:2] == [32, 32]
    assert spatial_sizes(build_student(name, 96, seed=0), 96)[0] == 48


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "efficientnet_b0", "vit_b_32"])
def test_the_students_of_the_paper_take_images_of_cifar(name):
    student = build_student(name, 32, seed=0)
    features = student(torch.randn(2, 3, 32, 32))
    assert features.shape == (2, student.width) and features.isfinite().all()
    features.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())


@pytest.mark.parametrize("name", ["vit_b_16", "vit_b_32", "timm:vit_tiny_patch16_224"])
def test_a_transformer_cuts_a_small_image_into_8_patches_per_side(name):
    assert spatial_sizes(build_student(name, 32, seed=0), 32)[0] == 8


def test_the_seed_decides_the_weights_and_the_random_state_is_left_alone():
    before = torch.random.get_rng_state()
    one, same, other = (build_student("convnet:4", 8, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet81", "resnet18"),
        ("timm:resnet81d", "timm:resnet18d"),
        ("convnet:", "convnet:64"),
        ("convnet:wide", "convnet:64"),
        ("nothing at all", "convnet:WIDTH"),
        ("timm:", "timm:NAME"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_ones(name, hint):
    with pytest.raises(ConfigError, match=r"student\.model") as caught:
        check_student(name)
    assert hint in str(caught.value)


def test_a_size_that_the_model_cannot_take_is_a_config_error():
    with pytest.raises(ConfigError, match=r"student\.image_size"):
        build_student("vit_b_16", 13, seed=0)
    with pytest.raises(ConfigError, match=r"student\.image_size"):
        build_student("vit_b_16", 100, seed=0)
