"""Training recipes of the experiments, compared step by step with their definitions."""

import numpy as np
import pytest
import torch

from coopt_fl.core.runtime import pick_device
from coopt_fl.priors import load_prior
from coopt_fl.students.models import build_student
from coopt_fl.students.objectives import make_objective
from coopt_fl.students.objectives.objective import AUGMENTATIONS, Objective, Setting
from experiments.architectures import OWN
from experiments.lab import Lab
from experiments.recipes import MOMENTUM, _look, more, objective, of_views, standardised
from experiments.scales import SCALES

(STUDY,) = SCALES["smoke"].values()
B, DIM = 8, 6


def made(name: str) -> Objective:
    targets = torch.randn(B, DIM, generator=torch.Generator().manual_seed(0))
    setting = Setting(B, config=STUDY.student, dim=DIM, targets=lambda rows: targets[rows])
    return make_objective(objective(name), build_student("convnet:4", 8, 0), setting, 0)


def images(number: int) -> torch.Tensor:
    return torch.randn(B, 3, 8, 8, generator=torch.Generator().manual_seed(number))


def test_the_loss_of_two_views_is_the_mean_of_theirs() -> None:
    two, rows = made("two").eval(), torch.arange(B)
    assert two.views[0] == two.views[1] == AUGMENTATIONS[STUDY.student.augment]
    one, other = (two([images(k)], rows, 0.0).item() for k in (1, 2))
    assert two([images(1), images(2)], rows, 0.0).item() == pytest.approx((one + other) / 2)
    assert one != pytest.approx(other)


def test_the_student_is_the_moving_average_of_what_is_trained() -> None:
    averaged, rows = made("averaged"), torch.arange(B)
    optimizer = torch.optim.SGD(averaged.parameters(), lr=0.5)
    key = "backbone.stages.0.conv.weight"
    mean = averaged.student.state_dict()[key].clone().numpy()
    for step in range(1, 4):
        averaged([images(step)], rows, 0.0).backward()
        optimizer.step()
        optimizer.zero_grad()
        averaged.after_step(0.0)
        momentum = min(MOMENTUM, (1 + step) / (10 + step))
        mean = momentum * mean + (1 - momentum) * averaged.trained.state_dict()[key].numpy()
    found = averaged.student.state_dict()[key].numpy()
    np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-8)
    assert not np.allclose(mean, averaged.trained.state_dict()[key].numpy())
    counted = "backbone.stages.0.norm.running_mean"
    assert averaged.student.state_dict()[counted].abs().sum() > 0, "batch norm's, too"


def test_a_strong_view_changes_colours_and_mirrors_only_what_may_be() -> None:
    (view,) = made("strong").views
    assert view.brightness == 0.8 and view.flip == 0.0 and view.scale == (0.5, 1.0)


def test_a_view_that_changes_nothing_has_the_features_of_the_image() -> None:
    lab, spec = Lab(STUDY), STUDY.priors[0]
    prior = load_prior(spec, pick_device(), STUDY.precision)
    same = _look(lab, prior, AUGMENTATIONS["none"], 0)
    np.testing.assert_allclose(same, lab.features(spec)[0], atol=1e-5)
    (other, seconds), *_ = more(lab, spec, 2)
    assert not np.allclose(other, same) and seconds > 0
    two, one = of_views(lab, 2, 0), lab.collaborate(0)
    assert two.optimize[0] > one.optimize[0]
    assert not np.allclose(two.targets, one.targets)


def test_the_transformer_has_sixteen_patches_and_a_class_token() -> None:
    student = build_student(OWN["vit_tiny"], 16, 0)
    assert student.width == 192
    assert student.backbone.pos_embed.shape == (1, 17, 192)


def test_standardised_targets_have_unit_variance() -> None:
    made = standardised(Lab(STUDY).collaborate(0))
    np.testing.assert_allclose(made.targets.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(made.targets.std(axis=0), 1, atol=1e-3)
