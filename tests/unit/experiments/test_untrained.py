"""Untrained students, with batch norm as built or with statistics of the images."""

import pytest
import torch
from torch import nn

from experiments.lab import Lab
from experiments.scales import SCALES
from experiments.untrained import untrained_student

(STUDY,) = SCALES["smoke"].values()


def test_as_built_batch_norm_is_the_identity() -> None:
    student = untrained_student(Lab(STUDY), seed=0, adapted=False, model="convnet:4")
    norms = [layer for layer in student.model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms and all((one.running_mean == 0).all() for one in norms)
    assert all((one.running_var == 1).all() for one in norms)


def test_every_batch_norm_gives_mean_0_and_variance_1() -> None:
    lab = Lab(STUDY)
    student = untrained_student(lab, seed=0, model="convnet:4")
    norms = [layer for layer in student.model.modules() if isinstance(layer, nn.BatchNorm2d)]
    outputs: list[torch.Tensor] = []
    for norm in norms:
        norm.register_forward_hook(lambda *given: outputs.append(given[2].clone()))
    with torch.no_grad():
        student.features(torch.stack(list(lab.source.read(lab.source.ids))))
    assert len(outputs) == len(norms) > 1 and not student.model.training
    for made in outputs:
        assert made.mean((0, 2, 3)).abs().max() < 0.05
        assert made.var((0, 2, 3)).tolist() == pytest.approx([1.0] * made.shape[1], abs=0.05)
