"""What the objectives do to a student: the loss falls, the features spread out, a probe gains.

How much each gains over a random backbone after a training of its own kind is in the tables of
``experiments/``; here each must show it on the digits, some after more epochs than others.
"""

from pathlib import Path

import pytest
import torch

from coopt_fl.config.schema import Config, DataConfig, StudentConfig
from coopt_fl.data import open_source
from coopt_fl.students.augment.view import draw_view
from coopt_fl.students.loop import make_optimizer
from coopt_fl.students.models import build_student
from coopt_fl.students.objectives import Setting, make_objective, on_targets
from coopt_fl.students.probe import Judge, random_student
from coopt_fl.students.train import train_student
from tests.unit.students.conftest import as_dataset, principal_targets

pytestmark = pytest.mark.whole

DIGITS = DataConfig("digits")
CLEAR = dict.fromkeys(("simclr", "dcl", "byol", "rela"), ("convnet:8", 3, 64, 3e-3)) | {
    "moco": ("convnet:8", 6, 64, 3e-3)  # its queue begins as noise, which is easy
}
PATIENT = {
    "simsiam": ("convnet:8", 2, 32, 5e-3),
    "instdisc": ("convnet:8", 12, 64, 3e-3),
    "swav": ("convnet:16", 20, 64, 3e-3),
    "dino": ("convnet:8", 2, 32, 3e-3),
}
"""Model, epochs, batch size and learning rate; the second begin slowly: SwAV's clusters are all
alike for the first hundred steps or two. Heads as wide as SimSiam's and DINO's take most of the
time, by the number of images that pass them."""


@pytest.mark.parametrize("objective", [*CLEAR, *PATIENT, "regression"])
def test_images_are_mirrored_by_all_objectives_or_by_none(objective: str) -> None:
    flips = {}
    for augment in ("crop", "crop_flip"):
        setting = Setting(
            100,
            config=StudentConfig(augment=augment),
            dim=4,
            targets=lambda rows: torch.zeros(len(rows), 4),
        )
        made = make_objective(objective, build_student("convnet:4", 32, 0), setting, 0)
        flips[augment] = {view.flip for view in made.views}
    assert flips == {"crop": {0.0}, "crop_flip": {0.5}}


@pytest.mark.parametrize("objective", [*CLEAR, *PATIENT])
def test_the_loss_falls_nothing_collapses_and_it_beats_a_random_backbone(
    objective: str, tmp_path: Path
) -> None:
    """DINO's loss does not fall in a short run and is tested below."""
    model, epochs, batch, lr = (CLEAR | PATIENT)[objective]
    config = StudentConfig(
        model=model, epochs=epochs, batch_size=batch, lr=lr, objective=objective
    )  # fmt: skip
    judge, dataset = Judge(DIGITS), None
    if on_targets(objective):  # components of the pixels
        source = open_source(DIGITS)
        dataset = as_dataset(source, source.ids, principal_targets(source, source.ids))
    before = judge(random_student(config, DIGITS, 0))
    curve = train_student(
        dataset, Config(data=DIGITS, student=config), tmp_path,
        devices=1, watch=judge, watch_every=epochs,
    ).curve  # fmt: skip
    assert objective == "dino" or curve[-1].loss < curve[0].loss
    assert curve[-1].spread > max(0.25, 1.5 * before.spread)
    assert curve[-1].accuracy > before.accuracy + (0.02 if objective in CLEAR else 0.015)


def test_dino_learns_from_a_teacher_that_stands_still() -> None:
    """The loss against a teacher that moves says nothing in a short run.

    In six epochs of digits it rises from 7.55 to log 2,048 = 7.62, the loss where all clusters are
    equally likely: that is where the teacher goes meanwhile (its entropy rises from 6.8 to 7.5).
    """
    source = open_source(DIGITS)
    images = torch.stack(source.read(source.ids[:32])).float() / 255
    objective = make_objective("dino", build_student("convnet:8", 8, 0), Setting(samples=32), 0)
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
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
