"""What the objectives do to a student: the loss falls, the features spread out, a probe gains.

How much each gains over a random backbone after a training of its own kind is in the tables of
``experiments/``; here the quick ones must show it within seconds.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from coopt_fl.data import open_source
from coopt_fl.schema import DataConfig, RuntimeConfig, StudentConfig
from coopt_fl.students import Judge, Point, build_student, train_student
from coopt_fl.students.augment import draw_view
from coopt_fl.students.judge import Judged
from coopt_fl.students.objectives import Task, make_objective
from coopt_fl.students.optimizer import make_optimizer
from coopt_fl.students.probe import random_student

DIGITS = DataConfig("digits")
QUICK = ("simclr", "dcl", "moco", "byol")


@dataclass(frozen=True)
class Learned:
    """A student before and after."""

    before: Judged
    curve: list[Point]


@pytest.fixture(scope="module")
def learn(tmp_path_factory: pytest.TempPathFactory):
    """Train by an objective, once for the whole module."""
    judge, known = Judge(DIGITS), {}

    def call(objective: str) -> Learned:
        if objective not in known:
            config = StudentConfig(
                model="convnet:8", epochs=3, batch_size=64, lr=3e-3, objective=objective
            )
            out: Path = tmp_path_factory.mktemp(objective)
            runtime = RuntimeConfig()
            made = train_student(
                None, DIGITS, config, runtime, out, 0, devices=1, watch=judge, watch_every=3
            )
            known[objective] = Learned(judge(random_student(config, DIGITS, 0)), made.curve)
        return known[objective]

    return call


@pytest.mark.parametrize("objective", [*QUICK, "simsiam", "swav", "instdisc"])
def test_the_loss_falls_and_nothing_collapses(learn, objective: str) -> None:
    learned = learn(objective)
    assert learned.curve[-1].loss < learned.curve[0].loss
    assert learned.curve[-1].spread > max(0.25, 1.5 * learned.before.spread)


@pytest.mark.parametrize("objective", QUICK)
def test_it_beats_a_random_backbone(learn, objective: str) -> None:
    learned = learn(objective)
    assert learned.curve[-1].accuracy > learned.before.accuracy + 0.02


def test_dino_learns_from_a_teacher_that_stands_still() -> None:
    """A teacher that moves sharpens meanwhile, so that its loss says nothing in a short run."""
    source = open_source(DIGITS)
    images = torch.stack(source.read(source.ids[:32])).float() / 255
    objective = make_objective("dino", build_student("convnet:8", 8, 0), Task(samples=32), 0)
    objective.momentum = objective.criterion.center_momentum = 1.0
    optimizer, losses, rows = make_optimizer(objective, 1e-3, 0.0), [], torch.arange(32)
    for step in range(12):
        views = [
            view(images, draw_view(rows, 100 * step + index))
            for index, view in enumerate(objective.views)
        ]
        loss = objective(views, rows, progress=0.5)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(0.5)
        losses.append(float(loss))
    assert losses[-1] < losses[0] - 0.05
