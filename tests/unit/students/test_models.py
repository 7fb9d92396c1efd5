from functools import cache

import pytest
import torch

import coopt_fl
from coopt_fl.core.errors import ConfigError
from coopt_fl.registry import PARTS
from coopt_fl.students import models
from coopt_fl.students.augment.view import draw_view
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.images import resizing
from coopt_fl.students.loop import make_optimizer
from coopt_fl.students.models import build_student, check_features, check_student
from coopt_fl.students.objectives import Setting, make_objective

SMALL = ["convnet:8", "resnet18", "mobilenet_v2", "timm:resnet10t", "timm:vit_tiny_patch16_224"]
LARGE = ["convnet:8", "resnet18", "efficientnet_b0", "timm:vit_tiny_patch16_224"]


def spatial_sizes(model, size: int) -> list[int]:
    """Return the output side of every convolution for an image of ``size`` pixels."""
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


@pytest.mark.whole
@pytest.mark.parametrize("name", ["resnet101", "efficientnet_b0"])
def test_the_students_of_the_paper_take_images_of_cifar(name):
    student = build_student(name, 32, seed=0)
    features = student(torch.randn(2, 3, 32, 32))
    assert features.shape == (2, student.width) and features.isfinite().all()
    features.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())


@pytest.mark.whole
@pytest.mark.parametrize("name", ["vit_b_16", "vit_b_32", "timm:vit_tiny_patch16_224"])
def test_a_transformer_cuts_a_small_image_into_8_patches_per_side(name):
    with torch.device("meta"):  # shapes need no numbers
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


PAPERS = {
    "resnet18": (32, 112),
    "resnet50": (32, 112),
    "resnet101": (32, 112),
    "mobilenet_v2": (32, 112),
    "efficientnet_b0": (32, 112),
    "vit_b_16": (8, 14),
}
"""Output side of the first convolution (stem or patches) for images of 32 and of 224 pixels."""


@pytest.mark.whole
@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_students_have_the_stem_of_their_image_size(name, size):
    with torch.device("meta"):  # shapes need no numbers
        student = build_student(name, size, seed=0)
        sides = spatial_sizes(student, size)
        assert student(torch.zeros(2, 3, size, size)).shape == (2, student.width)
    assert sides[0] == PAPERS[name][size == 224]
    if name.startswith("resnet"):  # 7x7, stride 2, and a max-pool, or neither
        assert sides[1] == (32 if size == 32 else 56)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("resnet18", "byol"),
        ("mobilenet_v2", "byol"),
        *((name, "regression") for name in ("resnet18", "resnet50", "mobilenet_v2", "vit_b_32")),
    ],
)
def test_the_papers_students_take_a_step_by_a_baseline_and_by_ours(name, objective):
    targets = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    setting = Setting(samples=4, dim=6, targets=lambda rows: targets[rows])
    model = make_objective(objective, build_student(name, 32, seed=0), setting, seed=0).train()
    before = next(model.student.parameters()).detach().clone()
    optimizer, rows = make_optimizer(model, 1e-3, 0.0), torch.arange(4)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    views = [view(images, draw_view(rows, index)) for index, view in enumerate(model.views)]
    loss = model(views, rows, 0.5)
    loss.backward()
    optimizer.step()
    model.after_step(0.5)
    assert loss.isfinite()
    assert not torch.equal(next(model.student.parameters()), before)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_model_without_a_feature_vector_is_refused_before_it_is_built_for_good(monkeypatch):
    built = []
    monkeypatch.setattr(models, "timm", lambda *how: built.append(how) or torch.nn.Identity())
    with pytest.raises(ConfigError, match="'timm:test_vit' gives no feature vector"):
        check_features("timm:test_vit", 32)
    assert len(built) == 2  # what fails without numbers may work with them


def test_what_is_checked_without_numbers_takes_no_memory_for_weights(monkeypatch):
    places = []
    plain = models.timm
    monkeypatch.setattr(models, "timm", lambda *how: places.append(plain(*how)) or places[-1])
    check_features("timm:test_vit", 32)
    assert [next(one.parameters()).device.type for one in places] == ["meta"]


def test_an_own_model_that_cannot_take_the_images_is_refused_before_the_work(monkeypatch):
    monkeypatch.setattr(PARTS, "_parts", dict(PARTS._parts))

    @coopt_fl.register.student("squares")
    @cache  # what was tried without numbers would be kept
    def squares(name, image_size):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))

    check_features("squares", 16)
    assert build_student("squares", 16, seed=0).width == 4
    with pytest.raises(ConfigError, match="'squares' cannot take images of 8x8 pixels"):
        check_features("squares", 8)


@pytest.mark.whole
def test_kernels_of_three_dimensions_can_be_trained_and_judged():
    model = build_student("timm:lambda_resnet26t", 32, seed=0)
    student = LoadedStudent(model, resizing(32), {})
    features = student.features(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert features.shape == (2, model.width) and features.isfinite().all()
